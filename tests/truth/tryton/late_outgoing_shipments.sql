SELECT shipment_id AS id, number, status AS state, warehouse_id, customer_id, planned_on AS planned_date, days_late
FROM late_outgoing_shipment
