-- Purpose: what was ordered from suppliers and what of it is still to come.
-- Grain:   one row per purchase; per status.
-- Key:     purchase_order_id; status.
-- Units:   amounts in the purchase's currency, net without and total with tax.
-- Late data: included whenever it comes.
-- Source:  purchase_order, supplier.

-- Every purchase.
CREATE MATERIALIZED VIEW purchase_order_status WITH ('key' = 'purchase_order_id') AS
SELECT
  p.purchase_order_id, p.number, p.status, p.supplier_id, s.name AS supplier_name, p.warehouse_id, p.ordered_on,
  p.delivery_status, p.invoice_status, p.is_open, p.currency, p.line_count, p.net_amount, p.total_amount
FROM purchase_order p
LEFT JOIN supplier s ON s.supplier_id = p.supplier_id;

-- Purchases by status.
CREATE MATERIALIZED VIEW purchases_by_status AS
SELECT status, COUNT(*) AS purchases, SUM(net_amount) AS net_amount
FROM purchase_order
GROUP BY status;
