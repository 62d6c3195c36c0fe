-- Purpose: the one definition of "sold", which all sales views aggregate.
-- Grain:   one row per goods line of an invoice or credit note that is not cancelled.
-- Key:     invoice_line_id; not kept by itself, the views over it share it.
-- Units:   quantities in the item's unit; net amounts in the document's currency, without tax.
-- Late data: a late or corrected line changes the day, hour and customer it belongs to.
-- Source:  sales_invoice_line, sales_invoice, customer, address, item. Group and category are those of now.
--
-- Invoices and credit notes are split into columns of their own, so that a sum over any set of rows is plain addition;
-- `quantity` and `net_amount` are as written on the paper. Customer, address and item may dangle: the line stays.
CREATE VIEW sold_line AS
SELECT
  l.invoice_line_id,
  l.invoice_id AS document_id,
  i.kind,
  CASE WHEN i.kind = 'invoice' THEN l.invoice_id END AS invoice_id,
  i.invoiced_on AS record_date,
  i.invoiced_at,
  i.customer_id,
  COALESCE(c.customer_group, '(none)') AS customer_group,
  i.channel,
  COALESCE(a.country, '(none)') AS country,
  CASE WHEN a.country = 'DE' THEN COALESCE(SUBSTR(a.postal_code, 1, 1), '') ELSE '' END AS postal_zone,
  l.item_id,
  m.category_id,
  l.quantity,
  l.net_amount,
  CASE WHEN i.kind = 'invoice' THEN COALESCE(l.quantity, 0) ELSE 0 END AS units_sold,
  CASE WHEN i.kind = 'invoice' THEN COALESCE(l.net_amount, 0) ELSE 0 END AS revenue_net,
  CASE WHEN i.kind = 'credit_note' THEN COALESCE(l.quantity, 0) ELSE 0 END AS units_credited,
  CASE WHEN i.kind = 'credit_note' THEN COALESCE(l.net_amount, 0) ELSE 0 END AS credited_net
FROM sales_invoice_line l
JOIN sales_invoice i ON i.invoice_id = l.invoice_id
LEFT JOIN customer c ON c.customer_id = i.customer_id
LEFT JOIN address a ON a.address_id = i.ship_address_id
LEFT JOIN item m ON m.item_id = l.item_id
WHERE l.is_goods AND NOT i.is_cancelled;
