-- Purpose: what sells: by item category, and by day and category.
-- Grain:   one row per category; per day and category.
-- Key:     the columns before the figures.
-- Units:   quantities in items' units, net amounts without tax; credit notes apart, not subtracted.
-- Late data: included whenever it comes, in the bucket it belongs to.
-- Source:  sold_line, where "sold" is defined.

-- Sales of each item category; NULL for items without one.
CREATE MATERIALIZED VIEW sales_by_category AS
SELECT
  category_id,
  COUNT(DISTINCT invoice_id) AS invoices,
  SUM(units_sold) AS units_sold,
  SUM(revenue_net) AS revenue_net,
  SUM(units_credited) AS units_credited,
  SUM(credited_net) AS credited_net
FROM sold_line
GROUP BY category_id;

-- Sales of each day and item category.
CREATE MATERIALIZED VIEW sales_by_day_and_category AS
SELECT
  record_date,
  category_id,
  COUNT(DISTINCT invoice_id) AS invoices,
  SUM(units_sold) AS units_sold,
  SUM(revenue_net) AS revenue_net,
  SUM(units_credited) AS units_credited,
  SUM(credited_net) AS credited_net
FROM sold_line
GROUP BY record_date, category_id;
