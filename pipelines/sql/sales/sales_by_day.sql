-- Purpose: units sold and net revenue over time.
-- Grain:   one row per day, or per hour.
-- Key:     the columns before the figures.
-- Units:   quantities in items' units, net amounts without tax; credit notes apart, not subtracted.
-- Late data: included whenever it comes, in the bucket it belongs to.
-- Source:  sold_line, where "sold" is defined.

-- Sales of each day by the date on the paper, the company's calendar.
CREATE MATERIALIZED VIEW sales_by_day AS
SELECT
  record_date,
  COUNT(DISTINCT invoice_id) AS invoices,
  SUM(units_sold) AS units_sold,
  SUM(revenue_net) AS revenue_net,
  SUM(units_credited) AS units_credited,
  SUM(credited_net) AS credited_net
FROM sold_line
GROUP BY record_date;

-- Sales of each hour of invoicing, as an instant in UTC.
CREATE MATERIALIZED VIEW sales_by_hour AS
SELECT
  FLOOR(invoiced_at TO HOUR) AS hour,
  COUNT(DISTINCT invoice_id) AS invoices,
  SUM(units_sold) AS units_sold,
  SUM(revenue_net) AS revenue_net,
  SUM(units_credited) AS units_credited,
  SUM(credited_net) AS credited_net
FROM sold_line
GROUP BY FLOOR(invoiced_at TO HOUR);
