SELECT country, site AS city_building, quantity, stock_records_in_stock AS product_locations_in_stock
FROM stock_by_site
