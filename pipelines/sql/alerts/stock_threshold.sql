-- Purpose: from what stock on an item is short, and what is at stake then: the base of the rule stock_below_threshold.
-- Grain:   one row per active item.
-- Key:     item_id.
-- Units:   quantities in the item's stock unit; `value_at_risk` in the company's currency at list price, without discounts.
-- Late data: as in item_stock.
-- Source:  item_stock.

-- The numbers behind the rules, in one place.
--   cover_days          stock must last so many days at the pace of the last 28 days
--   units_sold_28d_min  items that sold less in 28 days have no threshold of their own: a figure that sells once a month
--                       may be out of stock without anybody being woken
CREATE VIEW stock_alert_setting AS
SELECT CAST(3 AS DECIMAL(20, 6)) AS cover_days, CAST(20 AS DECIMAL(20, 6)) AS units_sold_28d_min;

-- The ERP's own minimum where it has one, else what sells in `cover_days`. NULL: no threshold.
-- At risk: open orders and a week's sales that the stock does not cover.
CREATE VIEW item_stock_threshold AS
SELECT
  t.item_id, t.sku, t.name, t.quantity, t.threshold, t.open_units, t.units_sold_28d,
  CAST(
    CASE
      WHEN t.week_demand > t.quantity THEN CAST((t.week_demand - t.quantity) * t.price AS DECIMAL(32, 6))
      ELSE CAST(0 AS DECIMAL(32, 6))
    END AS DECIMAL(20, 2)) AS value_at_risk
FROM (
  SELECT
    s.item_id, s.sku, s.name, s.quantity, s.open_units, s.units_sold_28d,
    CAST(
      COALESCE(
        CAST(s.minimum_quantity AS DECIMAL(20, 6)),
        CASE
          WHEN s.units_sold_28d >= g.units_sold_28d_min
            THEN CAST(CAST(s.units_sold_28d * g.cover_days / 28 AS DECIMAL(20, 2)) AS DECIMAL(20, 6))
        END) AS DECIMAL(20, 6)) AS threshold,
    CAST(s.open_units + s.units_sold_28d / 4 AS DECIMAL(20, 6)) AS week_demand,
    CAST(COALESCE(s.list_price, 0) AS DECIMAL(18, 6)) AS price
  FROM item_stock s
  CROSS JOIN stock_alert_setting g
  WHERE s.is_active
) t;
