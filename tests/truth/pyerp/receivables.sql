SELECT payment_status, due, invoices, total_amount
FROM receivables
