SELECT item_id AS product_id, open_units, orders
FROM open_demand_by_item
