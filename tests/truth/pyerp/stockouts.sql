SELECT item_id AS product_id, sku, quantity
FROM items_out_of_stock
