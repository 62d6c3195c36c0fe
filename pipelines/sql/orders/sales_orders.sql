-- Purpose: every customer order with its state, to look one up.
-- Grain:   one row per order, quotations included where the ERP keeps them as orders.
-- Key:     order_id.
-- Units:   amounts in the order's currency, net without and total with tax.
-- Late data: included whenever it comes.
-- Source:  sales_order.
CREATE MATERIALIZED VIEW sales_order_status WITH ('key' = 'order_id') AS
SELECT
  order_id, number, status, customer_id, warehouse_id, ordered_on, delivery_status, payment_status, invoice_status,
  is_open, currency, line_count, net_amount, total_amount
FROM sales_order;
