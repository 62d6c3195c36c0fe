SELECT country, postal_zone AS zip1, invoices, units_sold, revenue_net, units_credited, credited_net
FROM sales_by_region
