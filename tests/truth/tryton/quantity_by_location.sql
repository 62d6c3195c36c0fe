SELECT
  item_id AS product_id, sku AS product_code, unit AS uom, location_id, location, location_kind AS location_type, warehouse_id,
  on_hand, projected_today AS forecast_today, projected_7d AS forecast_7d, projected_30d AS forecast_30d, projected_all AS forecast_all
FROM stock_projection_named
