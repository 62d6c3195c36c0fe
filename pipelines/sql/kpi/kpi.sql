-- Purpose: the figures on the tiles of the board.
-- Grain:   one row each, always there.
-- Key:     none.
-- Units:   amounts in the company's currency, net unless said; quantities in items' units; percentages of 100.
-- Late data: included whenever it comes; `today` is the company's calendar date.
-- Source:  the kept views of the same areas, which are small.

-- Net revenue, units and invoices of today, beside yesterday's.
CREATE MATERIALIZED VIEW kpi_sales_today AS
SELECT
  COALESCE(SUM(CASE WHEN s.record_date = c.today THEN s.revenue_net END), 0) AS revenue_net,
  COALESCE(SUM(CASE WHEN s.record_date = c.today THEN s.units_sold END), 0) AS units_sold,
  COALESCE(SUM(CASE WHEN s.record_date = c.today THEN s.invoices END), 0) AS invoices,
  COALESCE(SUM(CASE WHEN s.record_date < c.today THEN s.revenue_net END), 0) AS revenue_net_yesterday,
  COALESCE(SUM(CASE WHEN s.record_date < c.today THEN s.units_sold END), 0) AS units_sold_yesterday
FROM sales_by_day s
CROSS JOIN company c
WHERE s.record_date <= c.today AND s.record_date >= c.today - INTERVAL '1' DAY;

-- Orders taken today and their net value, beside yesterday's.
CREATE MATERIALIZED VIEW kpi_order_intake_today AS
SELECT
  COALESCE(SUM(CASE WHEN i.ordered_on = c.today THEN i.orders END), 0) AS orders,
  COALESCE(SUM(CASE WHEN i.ordered_on = c.today THEN i.net END), 0) AS net,
  COALESCE(SUM(CASE WHEN i.ordered_on < c.today THEN i.orders END), 0) AS orders_yesterday,
  COALESCE(SUM(CASE WHEN i.ordered_on < c.today THEN i.net END), 0) AS net_yesterday
FROM order_intake_by_day i
CROSS JOIN company c
WHERE i.ordered_on <= c.today AND i.ordered_on >= c.today - INTERVAL '1' DAY;

-- Open orders, their value with tax, the goods still to deliver, and how many are older than 14 days.
CREATE MATERIALIZED VIEW kpi_open_orders AS
SELECT
  COALESCE(SUM(orders), 0) AS orders,
  COALESCE(SUM(total_amount), 0) AS total_amount,
  COALESCE(SUM(open_units), 0) AS open_units,
  COALESCE(SUM(CASE WHEN age_days IN ('15-30', '31+') THEN orders END), 0) AS older_than_14_days
FROM open_orders_by_status_and_age;

-- Open production orders, the late ones, and how much of their work is done; no percentage without work.
CREATE MATERIALIZED VIEW kpi_production AS
SELECT
  COALESCE(SUM(CASE WHEN is_open THEN 1 ELSE 0 END), 0) AS open_orders,
  COALESCE(SUM(CASE WHEN late THEN 1 ELSE 0 END), 0) AS late_orders,
  ROUND(
    CAST(100 * SUM(CASE WHEN is_open THEN completed ELSE 0 END) AS DECIMAL(28, 6))
      / CAST(NULLIF(SUM(CASE WHEN is_open THEN target ELSE 0 END), 0) AS DECIMAL(24, 6)), 2) AS completion_pct
FROM production_order_status;

-- Stock on hand, active items in stock, and active items out of stock.
CREATE MATERIALIZED VIEW kpi_stock AS
SELECT
  COALESCE(SUM(quantity), 0) AS quantity,
  COALESCE(SUM(CASE WHEN is_active AND quantity > 0 THEN 1 ELSE 0 END), 0) AS items_in_stock,
  COALESCE(SUM(CASE WHEN is_active AND quantity <= 0 THEN 1 ELSE 0 END), 0) AS items_out_of_stock
FROM item_availability;

-- Unpaid invoices with tax, and what of that is overdue.
CREATE MATERIALIZED VIEW kpi_receivables AS
SELECT
  COALESCE(SUM(total_amount), 0) AS open_amount,
  COALESCE(SUM(CASE WHEN due = 'late' THEN total_amount END), 0) AS overdue_amount,
  COALESCE(SUM(CASE WHEN due = 'late' THEN invoices END), 0) AS overdue_invoices
FROM receivables;

-- Movements of today and the quantity moved.
CREATE MATERIALIZED VIEW kpi_movements_today AS
SELECT COALESCE(SUM(m.movements), 0) AS movements, COALESCE(SUM(m.quantity), 0) AS quantity
FROM movements_by_day m
CROSS JOIN company c
WHERE m.moved_on = c.today;
