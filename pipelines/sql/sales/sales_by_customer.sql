-- Purpose: who buys: by customer, by customer group and by day and group.
-- Grain:   one row per customer; per group; per day and group.
-- Key:     the columns before the figures.
-- Units:   quantities in items' units, net amounts without tax; credit notes apart, not subtracted.
-- Late data: included whenever it comes, in the bucket it belongs to.
-- Source:  sold_line, where "sold" is defined.

-- Sales of each customer.
CREATE MATERIALIZED VIEW sales_by_customer AS
SELECT
  customer_id,
  COUNT(DISTINCT invoice_id) AS invoices,
  SUM(units_sold) AS units_sold,
  SUM(revenue_net) AS revenue_net,
  SUM(units_credited) AS units_credited,
  SUM(credited_net) AS credited_net
FROM sold_line
GROUP BY customer_id;

-- Sales of each customer group, the customer's group of now; `(none)` without one.
CREATE MATERIALIZED VIEW sales_by_customer_group AS
SELECT
  customer_group,
  COUNT(DISTINCT invoice_id) AS invoices,
  SUM(units_sold) AS units_sold,
  SUM(revenue_net) AS revenue_net,
  SUM(units_credited) AS units_credited,
  SUM(credited_net) AS credited_net
FROM sold_line
GROUP BY customer_group;

-- Sales of each day and customer group.
CREATE MATERIALIZED VIEW sales_by_day_and_customer_group AS
SELECT
  record_date,
  customer_group,
  COUNT(DISTINCT invoice_id) AS invoices,
  SUM(units_sold) AS units_sold,
  SUM(revenue_net) AS revenue_net,
  SUM(units_credited) AS units_credited,
  SUM(credited_net) AS credited_net
FROM sold_line
GROUP BY record_date, customer_group;
