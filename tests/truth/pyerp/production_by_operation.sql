SELECT operation AS operation_type, workstation_id AS legacy_kostenstelle_id, status, steps AS items, target, completed, remaining
FROM production_by_operation
