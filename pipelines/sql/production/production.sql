-- Purpose: how far production is and what is late.
-- Grain:   given above each view.
-- Key:     the GROUP BY columns, or the one named in WITH.
-- Units:   quantities in the product's unit, summed over the operations of an order; percentages of 100.
-- Late data: included whenever it comes. Late means due before now and still open.
-- Source:  production_order, production_step.

-- Steps of each production order added up, cancelled steps left out.
CREATE VIEW production_order_progress AS
SELECT
  production_order_id,
  SUM(target_quantity) AS target,
  SUM(completed_quantity) AS completed,
  SUM(remaining_quantity) AS remaining,
  COUNT(*) AS steps,
  SUM(CASE WHEN is_done THEN 1 ELSE 0 END) AS steps_done,
  SUM(cost) AS cost
FROM production_step
WHERE NOT is_cancelled
GROUP BY production_order_id;

-- Every production order with its completion and whether it is late.
CREATE MATERIALIZED VIEW production_order_status WITH ('key' = 'production_order_id') AS
SELECT
  o.production_order_id, o.number, o.reference, o.item_id, o.warehouse_id, o.status, o.is_open, o.quantity, o.unit, o.priority,
  o.planned_start_on, o.planned_on, o.due_at, o.started_on, o.finished_on,
  COALESCE(o.is_open AND o.due_at < CURRENT_TIMESTAMP, FALSE) AS late,
  COALESCE(p.target, 0) AS target,
  COALESCE(p.completed, 0) AS completed,
  COALESCE(p.remaining, 0) AS remaining,
  ROUND(CAST(100 * COALESCE(p.completed, 0) AS DECIMAL(28, 6)) / CAST(NULLIF(p.target, 0) AS DECIMAL(24, 6)), 2) AS completion_pct,
  COALESCE(p.steps, 0) AS steps,
  COALESCE(p.steps_done, 0) AS steps_done
FROM production_order o
LEFT JOIN production_order_progress p ON p.production_order_id = o.production_order_id;

-- Production orders by status, and how many of them are late.
CREATE MATERIALIZED VIEW production_by_status AS
SELECT status, COUNT(*) AS orders, SUM(quantity) AS quantity, SUM(CASE WHEN late THEN 1 ELSE 0 END) AS late
FROM production_order_status
GROUP BY status;

-- Work of released orders by operation, workstation and status.
CREATE MATERIALIZED VIEW production_by_operation AS
SELECT
  s.operation, s.workstation_id, s.status, COUNT(*) AS steps,
  SUM(s.target_quantity) AS target, SUM(s.completed_quantity) AS completed, SUM(s.remaining_quantity) AS remaining
FROM production_step s
JOIN production_order o ON o.production_order_id = s.production_order_id
WHERE o.is_released
GROUP BY s.operation, s.workstation_id, s.status;
