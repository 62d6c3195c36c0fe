SELECT TO_CHAR(hour, '%Y-%m-%dT%H:00:00Z') AS hour_utc, kind AS movement_type, movements, quantity
FROM movements_by_hour
