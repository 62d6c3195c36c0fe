-- Purpose: stock on hand, by item, place, building and slot.
-- Grain:   given above each view.
-- Key:     the GROUP BY columns, or those named in WITH.
-- Units:   the item's stock unit.
-- Late data: stock is what the books say now; a late booking changes it when it arrives.
-- Source:  stock_level, slot_stock, storage_slot, item, location, reorder_policy.

-- Book stock of each item at each place.
CREATE MATERIALIZED VIEW stock_by_item_and_location AS
SELECT s.item_id, m.sku, s.location_id, l.site, SUM(s.quantity) AS quantity
FROM stock_level s
LEFT JOIN item m ON m.item_id = s.item_id
LEFT JOIN location l ON l.location_id = s.location_id
GROUP BY s.item_id, m.sku, s.location_id, l.site;

-- Book stock of each item, and the number of stock records it is made of.
CREATE MATERIALIZED VIEW stock_by_item AS
SELECT s.item_id, m.sku, SUM(s.quantity) AS quantity, COUNT(*) AS stock_records
FROM stock_level s
LEFT JOIN item m ON m.item_id = s.item_id
GROUP BY s.item_id, m.sku;

-- What lies in each slot, with the place where the box stands and the place where it is booked.
CREATE MATERIALIZED VIEW stock_by_item_and_slot AS
SELECT
  s.item_id, f.slot_id, b.location_id AS box_location_id, s.location_id AS booked_location_id,
  SUM(f.quantity) AS quantity, COUNT(*) AS stock_records
FROM slot_stock f
JOIN stock_level s ON s.stock_level_id = f.stock_level_id
JOIN storage_slot b ON b.slot_id = f.slot_id
GROUP BY s.item_id, f.slot_id, b.location_id, s.location_id;

-- Book stock of each building.
CREATE MATERIALIZED VIEW stock_by_site AS
SELECT
  COALESCE(l.country, '') AS country, COALESCE(l.site, '(none)') AS site,
  SUM(s.quantity) AS quantity, SUM(CASE WHEN s.quantity > 0 THEN 1 ELSE 0 END) AS stock_records_in_stock
FROM stock_level s
LEFT JOIN location l ON l.location_id = s.location_id
GROUP BY COALESCE(l.country, ''), COALESCE(l.site, '(none)');

-- What the slots hold of each stock record.
CREATE VIEW slot_quantity AS
SELECT stock_level_id, SUM(quantity) AS quantity
FROM slot_stock
GROUP BY stock_level_id;

-- Stock records whose book quantity is not what their slots hold.
CREATE MATERIALIZED VIEW stock_drift WITH ('key' = 'stock_level_id') AS
SELECT
  s.stock_level_id, s.item_id, s.location_id, s.quantity AS booked,
  COALESCE(f.quantity, 0) AS in_slots, s.quantity - COALESCE(f.quantity, 0) AS drift
FROM stock_level s
LEFT JOIN slot_quantity f ON f.stock_level_id = s.stock_level_id
WHERE s.has_slots AND s.quantity <> COALESCE(f.quantity, 0);

-- Slots of each place, and how many are taken.
CREATE MATERIALIZED VIEW slots_by_location AS
SELECT location_id, COUNT(*) AS slots, SUM(CASE WHEN is_occupied THEN 1 ELSE 0 END) AS occupied
FROM storage_slot
GROUP BY location_id;
