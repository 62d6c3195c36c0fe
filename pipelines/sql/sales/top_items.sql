-- Purpose: what sold best in the last seven days.
-- Grain:   one row per item sold in the window; the twenty best.
-- Key:     item_id; rank.
-- Units:   units as invoiced, in the item's unit; net amounts without tax. Credit notes do not count.
-- Late data: an invoice written late counts while its own time is within the window.
-- Source:  sold_line, item.

-- Units and revenue of each item invoiced in the last seven days, to the second.
CREATE MATERIALIZED VIEW item_sales_7d AS
SELECT item_id, SUM(quantity) AS units, SUM(net_amount) AS revenue_net
FROM sold_line
WHERE kind = 'invoice' AND item_id IS NOT NULL
  AND invoiced_at > CURRENT_TIMESTAMP - INTERVAL '7' DAY AND invoiced_at <= CURRENT_TIMESTAMP
GROUP BY item_id;

-- The twenty items with the most units invoiced in the last seven days; equal units in the order of their ids.
CREATE MATERIALIZED VIEW top_items_7d WITH ('key' = 'rank') AS
SELECT t.rank, t.item_id, m.sku, m.name, t.units, t.revenue_net
FROM (
  SELECT item_id, units, revenue_net,
         CAST(ROW_NUMBER() OVER (ORDER BY units DESC NULLS FIRST, item_id ASC NULLS LAST) AS BIGINT) AS rank
  FROM item_sales_7d
) t
LEFT JOIN item m ON m.item_id = t.item_id
WHERE t.rank <= 20;
