SELECT
  order_id AS id, number, status AS state, customer_id AS party_id, warehouse_id, ordered_on AS `date`, delivery_status AS shipment_state,
  invoice_status AS invoice_state, line_count AS lines, net_amount AS untaxed_amount, total_amount
FROM sales_order_status
