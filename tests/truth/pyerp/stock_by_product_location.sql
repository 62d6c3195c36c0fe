SELECT item_id AS product_id, sku, location_id AS storage_location_id, site AS city_building, quantity
FROM stock_by_item_and_location
