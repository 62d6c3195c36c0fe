SELECT stock_level_id AS product_storage_id, item_id AS product_id, location_id AS storage_location_id, booked, in_slots, drift
FROM stock_drift
