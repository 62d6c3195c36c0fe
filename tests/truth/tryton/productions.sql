SELECT
  production_order_id AS id, number, status AS state, item_id AS product_id, quantity, unit AS uom, warehouse_id,
  planned_start_on AS planned_start_date, planned_on AS planned_date, started_on AS effective_start_date, finished_on AS effective_date,
  steps AS works, steps_done AS works_finished_or_done, cost
FROM production_order_status
