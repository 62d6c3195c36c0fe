SELECT TO_CHAR(hour, '%Y-%m-%dT%H:00:00Z') AS hour_utc, invoices, units_sold, revenue_net, units_credited, credited_net
FROM sales_by_hour
