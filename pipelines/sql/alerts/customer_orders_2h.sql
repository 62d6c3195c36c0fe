-- Purpose: how many orders each customer placed in the last two hours: the base of the rule customer_order_burst.
-- Grain:   one row per customer who ordered in the last two hours.
-- Key:     customer_id.
-- Units:   net amounts in the orders' currency, without tax.
-- Late data: an order counts while its own time is within the window, whenever it comes.
-- Source:  sales_order, customer. Quotes and sales over the counter are no orders. Where an ERP knows only the day of
--          an order, the order counts in the two hours after midnight UTC of that day.
CREATE MATERIALIZED VIEW customer_orders_2h WITH ('key' = 'customer_id') AS
SELECT o.customer_id, c.number, c.name, o.orders, o.net_amount, o.first_order_at, o.last_order_at
FROM (
  SELECT
    customer_id, COUNT(*) AS orders, SUM(net_amount) AS net_amount,
    MIN(ordered_at) AS first_order_at, MAX(ordered_at) AS last_order_at
  FROM sales_order
  WHERE customer_id IS NOT NULL AND NOT is_quote AND NOT is_cancelled
    AND ordered_at > CURRENT_TIMESTAMP - INTERVAL '2' HOUR AND ordered_at <= CURRENT_TIMESTAMP
  GROUP BY customer_id
) o
LEFT JOIN customer c ON c.customer_id = o.customer_id;
