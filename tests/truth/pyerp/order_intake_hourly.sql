SELECT TO_CHAR(hour, '%Y-%m-%dT%H:00:00Z') AS hour_utc, orders, net
FROM order_intake_by_hour
