-- Purpose: stock of every item beside what is wanted of it: the base of shortage alerts.
-- Grain:   one row per item, also of items never in stock.
-- Key:     item_id.
-- Units:   the item's stock unit.
-- Late data: as in stock.sql.
-- Source:  item, stock_level, reorder_policy, open_demand_by_item, sold_line.

-- Book stock of each item over all places.
CREATE VIEW item_quantity AS
SELECT item_id, SUM(quantity) AS quantity
FROM stock_level
GROUP BY item_id;

-- The lowest stock each item should have over all places, where the ERP says so.
CREATE VIEW item_minimum AS
SELECT item_id, SUM(minimum_quantity) AS minimum_quantity
FROM reorder_policy
WHERE kind <> 'internal'
GROUP BY item_id;

-- Units of each item invoiced in the last 28 days: four whole weeks, so that weekends weigh the same every day.
CREATE MATERIALIZED VIEW item_sales_28d AS
SELECT item_id, SUM(units_sold) AS units
FROM sold_line
WHERE item_id IS NOT NULL
  AND invoiced_at > CURRENT_TIMESTAMP - INTERVAL '28' DAY AND invoiced_at <= CURRENT_TIMESTAMP
GROUP BY item_id;

-- Every item with its stock and what open orders want.
CREATE VIEW item_availability AS
SELECT
  m.item_id, m.sku, m.name, m.category_id, m.unit, m.is_active, m.list_price,
  COALESCE(q.quantity, 0) AS quantity,
  COALESCE(d.open_units, 0) AS open_units
FROM item m
LEFT JOIN item_quantity q ON q.item_id = m.item_id
LEFT JOIN open_demand_by_item d ON d.item_id = m.item_id
WHERE m.kind = 'goods';

-- Every item with its stock, what open orders want, what sold in 28 days, and its minimum where the ERP has one.
CREATE MATERIALIZED VIEW item_stock WITH ('key' = 'item_id') AS
SELECT
  a.item_id, a.sku, a.name, a.category_id, a.unit, a.is_active, a.quantity, a.open_units,
  COALESCE(s.units, 0) AS units_sold_28d,
  r.minimum_quantity,
  a.list_price
FROM item_availability a
LEFT JOIN item_sales_28d s ON s.item_id = a.item_id
LEFT JOIN item_minimum r ON r.item_id = a.item_id;

-- Active items with nothing in stock.
CREATE MATERIALIZED VIEW items_out_of_stock WITH ('key' = 'item_id') AS
SELECT item_id, sku, name, quantity, open_units
FROM item_availability
WHERE is_active AND quantity <= 0;
