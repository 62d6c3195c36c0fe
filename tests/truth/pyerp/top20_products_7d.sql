SELECT item_id AS product_id, units, revenue_net
FROM top_items_7d
