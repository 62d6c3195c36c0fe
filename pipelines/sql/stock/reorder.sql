-- Purpose: reorder points and whether stock is, or will be, below them.
-- Grain:   one row per reorder point.
-- Key:     reorder_policy_id.
-- Units:   the item's stock unit.
-- Late data: as in projection.sql.
-- Source:  reorder_policy, item, location, stock_projection_by_subtree.

-- Every reorder point with what is and will be there: at its location and those below it.
CREATE MATERIALIZED VIEW reorder_point_status WITH ('key' = 'reorder_policy_id') AS
SELECT
  f.reorder_policy_id, f.kind, f.item_id, f.sku, f.location_id, f.location, f.minimum_quantity, f.target_quantity,
  f.on_hand, f.projected_today, f.projected_7d,
  f.on_hand < f.minimum_quantity AS below_minimum_on_hand,
  f.projected_today < f.minimum_quantity AS below_minimum_today,
  f.projected_7d < f.minimum_quantity AS below_minimum_7d
FROM (
  SELECT
    r.reorder_policy_id, r.kind, r.item_id, m.sku, r.location_id, l.name AS location, r.minimum_quantity, r.target_quantity,
    COALESCE(p.on_hand, 0) AS on_hand,
    COALESCE(p.projected_today, 0) AS projected_today,
    COALESCE(p.projected_7d, 0) AS projected_7d
  FROM reorder_policy r
  LEFT JOIN item m ON m.item_id = r.item_id
  LEFT JOIN location l ON l.location_id = r.location_id
  LEFT JOIN stock_projection_by_subtree p ON p.item_id = r.item_id AND p.location_id = r.location_id
) f;
