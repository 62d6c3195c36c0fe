SELECT
  reorder_policy_id AS id, kind AS type, item_id AS product_id, sku AS product_code, location_id, location,
  minimum_quantity AS min_quantity, target_quantity, on_hand, projected_today AS forecast_today, projected_7d AS forecast_7d,
  CASE WHEN below_minimum_on_hand THEN 'True' ELSE 'False' END AS below_min_on_hand,
  CASE WHEN below_minimum_today THEN 'True' ELSE 'False' END AS below_min_forecast_today,
  CASE WHEN below_minimum_7d THEN 'True' ELSE 'False' END AS below_min_forecast_7d
FROM reorder_point_status
