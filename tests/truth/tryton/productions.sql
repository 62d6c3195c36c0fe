SELECT
  s.production_order_id AS id, s.number, s.status AS state, s.item_id AS product_id, s.quantity, s.unit AS uom, s.warehouse_id,
  s.planned_start_on AS planned_start_date, s.planned_on AS planned_date, s.started_on AS effective_start_date, s.finished_on AS effective_date,
  s.steps AS works, s.steps_done AS works_finished_or_done, c.cost
FROM production_order_status s
JOIN production_order_cost c ON c.production_order_id = s.production_order_id
