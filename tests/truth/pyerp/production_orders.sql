SELECT
  production_order_id AS id, number AS order_number, status, reference AS form_number, quantity, late,
  target, completed, remaining, completion_pct
FROM production_order_status
