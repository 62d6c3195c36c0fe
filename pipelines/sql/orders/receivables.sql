-- Purpose: what customers still have to pay.
-- Grain:   one row per unpaid invoice; per payment status and due or not.
-- Key:     invoice_id; payment_status and due.
-- Units:   total amounts with tax, in the invoice's currency.
-- Late data: included whenever it comes. Overdue is judged in the company's calendar.
-- Source:  sales_invoice, customer, company.

-- Every unpaid invoice.
CREATE MATERIALIZED VIEW open_invoice WITH ('key' = 'invoice_id') AS
SELECT
  i.invoice_id, i.number, i.customer_id, c.name AS customer_name, i.payment_status, i.invoiced_on, i.due_on,
  i.total_amount
FROM sales_invoice i
LEFT JOIN customer c ON c.customer_id = i.customer_id
WHERE i.kind = 'invoice' AND i.is_unpaid;

-- Unpaid invoices by payment status and by whether they are past their due date.
CREATE MATERIALIZED VIEW receivables AS
SELECT payment_status, due, COUNT(*) AS invoices, SUM(total_amount) AS total_amount
FROM (
  SELECT i.payment_status, CASE WHEN c.today > i.due_on THEN 'late' ELSE 'in time' END AS due, i.total_amount
  FROM open_invoice i
  CROSS JOIN company c
) judged
GROUP BY payment_status, due;
