SELECT item_id AS product_id, warehouse_id, on_hand AS quantity, projected_today AS forecast_quantity
FROM stock_projection_by_warehouse
WHERE warehouse_id = (SELECT MIN(warehouse_id) FROM stock_projection_by_warehouse)
