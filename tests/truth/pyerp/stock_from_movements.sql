SELECT item_id AS product_id, moved_in, moved_out, moved_in - moved_out AS net
FROM slot_movements_by_item
