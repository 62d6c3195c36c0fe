-- Purpose: what moves in the warehouse.
-- Grain:   given above each view.
-- Key:     the GROUP BY columns.
-- Units:   the item's stock unit; quantities have no sign.
-- Late data: included whenever it comes, in the hour and day it belongs to.
-- Source:  stock_move.

-- Movements by the hour, as an instant in UTC, and by kind.
CREATE MATERIALIZED VIEW movements_by_hour AS
SELECT window_start AS hour, kind, COUNT(*) AS movements, SUM(quantity) AS quantity
FROM TABLE(TUMBLE(TABLE stock_move, DESCRIPTOR(moved_at), INTERVAL '1' HOUR))
WHERE status = 'done'
GROUP BY window_start, window_end, kind;

-- Movements by day in UTC and by kind.
CREATE MATERIALIZED VIEW movements_by_utc_day AS
SELECT CAST(moved_at AS DATE) AS utc_day, kind, COUNT(*) AS movements, SUM(quantity) AS quantity
FROM stock_move
WHERE status = 'done'
GROUP BY CAST(moved_at AS DATE), kind;

-- Movements by day in the company's calendar and by kind.
CREATE MATERIALIZED VIEW movements_by_day AS
SELECT moved_on, kind, COUNT(*) AS movements, SUM(quantity) AS quantity
FROM stock_move
WHERE status = 'done'
GROUP BY moved_on, kind;

-- What movements brought into and took out of the slots, by item.
CREATE MATERIALIZED VIEW slot_movements_by_item AS
SELECT
  item_id,
  SUM(CASE WHEN to_slot_id IS NOT NULL THEN COALESCE(quantity, 0) ELSE 0 END) AS moved_in,
  SUM(CASE WHEN from_slot_id IS NOT NULL THEN COALESCE(quantity, 0) ELSE 0 END) AS moved_out
FROM stock_move
WHERE status = 'done'
GROUP BY item_id;
