-- Purpose: what customers order and what is still owed to them.
-- Grain:   given above each view.
-- Key:     the GROUP BY columns, or the one named in WITH.
-- Units:   amounts in the order's currency, net without and total with tax; open units in the items' units.
-- Late data: included whenever it comes. Ages are whole days in the company's calendar.
-- Source:  sales_order, sales_order_line, sales_document, customer, company.

-- Orders and their net value by the hour they were taken, as an instant in UTC; cancelled orders count too.
CREATE MATERIALIZED VIEW order_intake_by_hour AS
SELECT FLOOR(ordered_at TO HOUR) AS hour, COUNT(*) AS orders, SUM(net_amount) AS net
FROM sales_order
WHERE NOT is_quote
GROUP BY FLOOR(ordered_at TO HOUR);

-- Orders and their net value by the date on the order; cancelled orders count too.
CREATE MATERIALIZED VIEW order_intake_by_day AS
SELECT ordered_on, COUNT(*) AS orders, SUM(net_amount) AS net
FROM sales_order
WHERE NOT is_quote
GROUP BY ordered_on;

-- Goods of each order that are not delivered yet.
CREATE VIEW order_open_units AS
SELECT order_id, SUM(quantity - delivered_quantity) AS open_units
FROM sales_order_line
WHERE is_goods AND is_open
GROUP BY order_id;

-- Every open order: not cancelled, not or only partly delivered.
CREATE MATERIALIZED VIEW open_order WITH ('key' = 'order_id') AS
SELECT
  o.order_id, o.number, o.customer_id, c.number AS customer_number, c.name AS customer_name,
  o.payment_status, o.delivery_status, o.ordered_on, o.ordered_at, o.total_amount, o.net_amount,
  COALESCE(u.open_units, 0) AS open_units
FROM sales_order o
LEFT JOIN order_open_units u ON u.order_id = o.order_id
LEFT JOIN customer c ON c.customer_id = o.customer_id
WHERE o.is_open;

-- Open orders by status and by age in days.
CREATE MATERIALIZED VIEW open_orders_by_status_and_age AS
SELECT payment_status, delivery_status, age_days, COUNT(*) AS orders, SUM(total_amount) AS total_amount, SUM(open_units) AS open_units
FROM (
  SELECT
    o.payment_status, o.delivery_status, o.total_amount, o.open_units,
    CASE
      WHEN c.today - o.ordered_on <= 2 THEN '00-02'
      WHEN c.today - o.ordered_on <= 7 THEN '03-07'
      WHEN c.today - o.ordered_on <= 14 THEN '08-14'
      WHEN c.today - o.ordered_on <= 30 THEN '15-30'
      ELSE '31+'
    END AS age_days
  FROM open_order o
  CROSS JOIN company c
) aged
GROUP BY payment_status, delivery_status, age_days;

-- What open orders want of each item, cancelled orders left out; lines without an item together.
CREATE MATERIALIZED VIEW open_demand_by_item AS
SELECT l.item_id, SUM(l.quantity - l.delivered_quantity) AS open_units, COUNT(DISTINCT o.order_id) AS orders
FROM sales_order_line l
JOIN sales_order o ON o.order_id = l.order_id
WHERE NOT o.is_quote AND NOT o.is_cancelled AND l.is_goods AND l.is_open
GROUP BY l.item_id;

-- All sales papers by type and status, in the ERP's own words.
CREATE MATERIALIZED VIEW sales_documents_by_status AS
SELECT document_type, source_type, payment_status, delivery_status, COUNT(*) AS documents, SUM(total_amount) AS total_amount
FROM sales_document
GROUP BY document_type, source_type, payment_status, delivery_status;
