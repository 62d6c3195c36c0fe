-- Purpose: what production orders cost in material and work.
-- Grain:   one row per production order.
-- Key:     production_order_id.
-- Units:   the company's currency, four decimals; material is rounded half to even.
-- Late data: included whenever it comes. Material not yet taken changes its cost with the item's.
-- Source:  production_order, production_step, material_consumption.

-- What the material of each production order costs: what was taken at the cost booked, the rest at the cost of now.
CREATE VIEW production_order_material AS
SELECT
  production_order_id,
  CAST(
    CASE
      WHEN ABS(exact % CAST(0.0002 AS DECIMAL(32, 14))) = CAST(0.00005 AS DECIMAL(32, 14))
        THEN exact - exact % CAST(0.0002 AS DECIMAL(32, 14))
      ELSE ROUND(exact, 4)
    END AS DECIMAL(24, 4)) AS cost
FROM (
  SELECT production_order_id, CAST(SUM(CAST(quantity * unit_cost AS DECIMAL(32, 14))) AS DECIMAL(32, 14)) AS exact
  FROM material_consumption
  GROUP BY production_order_id
) summed;

-- Material and work of every production order.
CREATE MATERIALIZED VIEW production_order_cost WITH ('key' = 'production_order_id') AS
SELECT
  o.production_order_id, o.number, o.status,
  COALESCE(m.cost, 0) AS material_cost,
  COALESCE(p.cost, 0) AS work_cost,
  COALESCE(m.cost, 0) + COALESCE(p.cost, 0) AS cost
FROM production_order o
LEFT JOIN production_order_progress p ON p.production_order_id = o.production_order_id
LEFT JOIN production_order_material m ON m.production_order_id = o.production_order_id;
