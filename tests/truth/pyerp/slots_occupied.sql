SELECT location_id AS storage_location_id, slots, occupied
FROM slots_by_location
