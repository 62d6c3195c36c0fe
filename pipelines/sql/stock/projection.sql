-- Purpose: stock on hand and what booked moves will make of it, for ERPs that plan by moves.
-- Grain:   one row per item and location, or per item and warehouse.
-- Key:     item_id, location_id; item_id, warehouse_id.
-- Units:   the item's stock unit.
-- Late data: a move entered or cancelled late changes the figures when it arrives.
-- Source:  stock_posting, item, location, location_tree, company.
--
-- A done move counts from its date on. A reserved move counts from today on, until it is done. A planned move counts
-- from its planned date on, and no longer once that date has passed: what should have come may never come.
-- `projected_all` knows no horizon, and so takes in planned moves without a date.

-- What each move does to each of its two locations, and when.
CREATE VIEW dated_posting AS
SELECT
  p.item_id, p.location_id, p.quantity, p.is_done, p.is_expected, c.today,
  COALESCE(p.moved_on, CASE WHEN p.is_reserved THEN c.today ELSE p.planned_on END) AS due_on
FROM stock_posting p
CROSS JOIN company c
WHERE p.is_done OR p.is_expected;

-- On hand and projected stock of each item at each location, of whatever kind: stock the company owns is at those of
-- kind `storage`.
CREATE MATERIALIZED VIEW stock_projection_by_location AS
SELECT
  item_id, location_id,
  SUM(CASE WHEN is_done AND due_on <= today THEN quantity ELSE 0 END) AS on_hand,
  SUM(CASE WHEN due_on <= today THEN quantity ELSE 0 END) AS projected_today,
  SUM(CASE WHEN due_on <= today + INTERVAL '7' DAY THEN quantity ELSE 0 END) AS projected_7d,
  SUM(CASE WHEN due_on <= today + INTERVAL '30' DAY THEN quantity ELSE 0 END) AS projected_30d,
  SUM(quantity) AS projected_all
FROM dated_posting
WHERE is_done OR due_on >= today OR due_on IS NULL
GROUP BY item_id, location_id;

-- The same at each location with all those below it.
CREATE VIEW stock_projection_by_subtree AS
SELECT
  p.item_id, t.ancestor_id AS location_id,
  SUM(p.on_hand) AS on_hand, SUM(p.projected_today) AS projected_today, SUM(p.projected_7d) AS projected_7d,
  SUM(p.projected_30d) AS projected_30d, SUM(p.projected_all) AS projected_all
FROM stock_projection_by_location p
JOIN location_tree t ON t.location_id = p.location_id
GROUP BY p.item_id, t.ancestor_id;

-- On hand and projected stock of each active item in each active warehouse, nothing in stock included.
CREATE MATERIALIZED VIEW stock_projection_by_warehouse WITH ('key' = 'item_id,warehouse_id') AS
SELECT
  m.item_id, m.sku, m.unit, w.location_id AS warehouse_id, w.name AS warehouse,
  COALESCE(p.on_hand, 0) AS on_hand,
  COALESCE(p.projected_today, 0) AS projected_today,
  COALESCE(p.projected_7d, 0) AS projected_7d,
  COALESCE(p.projected_30d, 0) AS projected_30d,
  COALESCE(p.projected_all, 0) AS projected_all
FROM item m
JOIN location w ON w.kind = 'warehouse' AND w.is_active
LEFT JOIN stock_projection_by_subtree p ON p.item_id = m.item_id AND p.location_id = w.location_id
WHERE m.is_active AND m.kind = 'goods';

-- The rows of stock_projection_by_location with the names of item and location.
CREATE MATERIALIZED VIEW stock_projection_named WITH ('key' = 'item_id,location_id') AS
SELECT
  p.item_id, m.sku, m.unit, p.location_id, l.name AS location, l.kind AS location_kind, l.warehouse_id,
  p.on_hand, p.projected_today, p.projected_7d, p.projected_30d, p.projected_all
FROM stock_projection_by_location p
LEFT JOIN item m ON m.item_id = p.item_id
LEFT JOIN location l ON l.location_id = p.location_id;

-- Stock of each item over all warehouses and what it cost.
CREATE MATERIALIZED VIEW stock_value WITH ('key' = 'item_id') AS
SELECT
  q.item_id, q.sku, q.on_hand, m.cost_price,
  CAST(
    CASE
      WHEN ABS(CAST(q.on_hand * m.cost_price AS DECIMAL(32, 14)) % CAST(0.0002 AS DECIMAL(32, 14))) = CAST(0.00005 AS DECIMAL(32, 14))
        THEN CAST(q.on_hand * m.cost_price AS DECIMAL(32, 14)) - CAST(q.on_hand * m.cost_price AS DECIMAL(32, 14)) % CAST(0.0002 AS DECIMAL(32, 14))
      ELSE ROUND(CAST(q.on_hand * m.cost_price AS DECIMAL(32, 14)), 4)
    END AS DECIMAL(24, 4)) AS cost_value
FROM (
  SELECT item_id, sku, CAST(SUM(on_hand) AS DECIMAL(20, 6)) AS on_hand
  FROM stock_projection_by_warehouse
  GROUP BY item_id, sku
) q
LEFT JOIN item m ON m.item_id = q.item_id;
