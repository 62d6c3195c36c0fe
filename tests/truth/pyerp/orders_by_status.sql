SELECT source_type AS record_type, payment_status, delivery_status, documents AS records, total_amount
FROM sales_documents_by_status
