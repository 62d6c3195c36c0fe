SELECT customer_group, invoices, units_sold, revenue_net, units_credited, credited_net
FROM sales_by_customer_group
