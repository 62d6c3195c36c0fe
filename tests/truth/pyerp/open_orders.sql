SELECT payment_status, delivery_status, age_days, orders, total_amount, open_units
FROM open_orders_by_status_and_age
