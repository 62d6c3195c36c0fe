-- Purpose: where it sells: by channel and by region shipped to.
-- Grain:   one row per channel; per country and postal zone.
-- Key:     the columns before the figures.
-- Units:   quantities in items' units, net amounts without tax; credit notes apart, not subtracted.
-- Late data: included whenever it comes, in the bucket it belongs to.
-- Source:  sold_line, where "sold" is defined.

-- Sales of each channel.
CREATE MATERIALIZED VIEW sales_by_channel AS
SELECT
  channel,
  COUNT(DISTINCT invoice_id) AS invoices,
  SUM(units_sold) AS units_sold,
  SUM(revenue_net) AS revenue_net,
  SUM(units_credited) AS units_credited,
  SUM(credited_net) AS credited_net
FROM sold_line
GROUP BY channel;

-- Sales of each country and, within Germany, first digit of the postal code.
CREATE MATERIALIZED VIEW sales_by_region AS
SELECT
  country,
  postal_zone,
  COUNT(DISTINCT invoice_id) AS invoices,
  SUM(units_sold) AS units_sold,
  SUM(revenue_net) AS revenue_net,
  SUM(units_credited) AS units_credited,
  SUM(credited_net) AS credited_net
FROM sold_line
GROUP BY country, postal_zone;
