SELECT item_id AS product_id, slot_id AS box_slot_id, box_location_id, booked_location_id, quantity, stock_records AS rows
FROM stock_by_item_and_slot
