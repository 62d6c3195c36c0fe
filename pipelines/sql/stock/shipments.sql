-- Purpose: deliveries to customers that should have left.
-- Grain:   one row per late outgoing shipment.
-- Key:     shipment_id.
-- Units:   days in the company's calendar.
-- Late data: included whenever it comes.
-- Source:  shipment, customer, company.

-- Open shipments to customers whose planned date has passed.
CREATE MATERIALIZED VIEW late_outgoing_shipment WITH ('key' = 'shipment_id') AS
SELECT
  s.shipment_id, s.number, s.status, s.warehouse_id, s.party_id AS customer_id, c.name AS customer_name, s.planned_on,
  y.today - s.planned_on AS days_late
FROM shipment s
CROSS JOIN company y
LEFT JOIN customer c ON c.customer_id = s.party_id
WHERE s.kind = 'out' AND s.is_open AND s.planned_on < y.today;
