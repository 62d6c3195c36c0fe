SELECT item_id AS product_id, sku, quantity, stock_records AS locations
FROM stock_by_item
