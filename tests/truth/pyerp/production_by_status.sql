SELECT status, orders, quantity, late
FROM production_by_status
