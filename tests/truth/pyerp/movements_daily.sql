SELECT TO_CHAR(utc_day, '%Y-%m-%d') AS day_utc, kind AS movement_type, movements, quantity
FROM movements_by_utc_day
