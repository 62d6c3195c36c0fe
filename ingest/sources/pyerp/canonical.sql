-- Purpose: pyERP's tables as the canonical relations every view is written on (docs/canonical.md).
-- Grain:   given above each view.
-- Units:   quantities in the item's stock unit (pyERP counts pieces), DECIMAL(20, 6); amounts in the document's currency.
-- Late data: none dropped; a row that arrives late changes what it belongs to.
-- Source:  tables.sql. What a code means is pyERP's own: `definition of sold` and `open` follow its reports.
--
-- A time outside the years 1678 to 2261 becomes NULL: nanoseconds, which some functions use inside, end there, and one
-- such typing error must not stop a view.
-- A NULL in a code stays NULL in the flag made of it, and a filter on that flag drops the row, as in the ERP's own SQL.

-- The one company of an installation. `today` is its calendar date: one row that changes at its midnight.
-- Another time zone is set here, in this one statement.
-- NOT PORTABLE: Flink has one time zone for a whole job.
CREATE VIEW company AS
SELECT
  CAST(1 AS BIGINT) AS company_id,
  'EUR' AS currency,
  'Europe/Berlin' AS time_zone,
  CAST(CURRENT_TIMESTAMP AT TIME ZONE 'Europe/Berlin' AS DATE) AS today;

-- One row per category.
CREATE VIEW item_category AS
SELECT id AS category_id, code, name, parent_id
FROM products_productcategory;

-- One row per variant: what is sold and stored. The category is the variant's own, else its family's; it may dangle,
-- since pyERP has no foreign key on it.
CREATE VIEW item AS
SELECT
  v.id AS item_id,
  v.sku,
  v.name,
  'goods' AS kind,
  COALESCE(v.category_id, p.category_id) AS category_id,
  v.parent_id AS family_id,
  'pcs' AS unit,
  v.is_active AND NOT v.is_discontinued AS is_active,
  CAST(v.retail_price AS DECIMAL(24, 8)) AS list_price,
  CAST(NULL AS DECIMAL(24, 8)) AS cost_price
FROM products_variantproduct v
LEFT JOIN products_parentproduct p ON p.id = v.parent_id;

-- EMPTY: pyERP has no substitutes
CREATE VIEW item_substitute AS
SELECT CAST(NULL AS BIGINT) AS item_id, CAST(NULL AS BIGINT) AS substitute_item_id, CAST(NULL AS STRING) AS reason
WHERE FALSE;

-- EMPTY: pyERP has no bill of materials
CREATE VIEW bom_line AS
SELECT
  CAST(NULL AS BIGINT) AS bom_line_id, CAST(NULL AS BIGINT) AS bom_id, CAST(NULL AS BIGINT) AS item_id,
  CAST(NULL AS BIGINT) AS component_item_id, CAST(NULL AS DECIMAL(20, 6)) AS output_quantity,
  CAST(NULL AS DECIMAL(20, 6)) AS component_quantity
WHERE FALSE;

-- One row per storage place. `site` is the building.
CREATE VIEW location AS
SELECT
  id AS location_id,
  location_code AS code,
  name,
  'storage' AS kind,
  city_building AS site,
  country,
  CAST(NULL AS BIGINT) AS parent_id,
  CAST(NULL AS BIGINT) AS warehouse_id,
  is_active
FROM inventory_storagelocation;

-- One row per location and location at or above it: pyERP's places have none above them.
CREATE VIEW location_tree AS
SELECT id AS location_id, id AS ancestor_id
FROM inventory_storagelocation;

-- One row per slot of a box; where the box stands now.
CREATE VIEW storage_slot AS
SELECT s.id AS slot_id, s.slot_code AS code, s.box_id AS container_id, b.storage_location_id AS location_id, s.occupied AS is_occupied
FROM inventory_boxslot s
JOIN inventory_box b ON b.id = s.box_id;

-- One row per stock record: book stock of an item at a place. An item can have several at one place.
CREATE VIEW stock_level AS
SELECT
  id AS stock_level_id,
  product_id AS item_id,
  storage_location_id AS location_id,
  CAST(quantity AS DECIMAL(20, 6)) AS quantity,
  reservation_status AS status,
  TRUE AS has_slots
FROM inventory_productstorage;

-- One row per stock record and slot: what lies where.
CREATE VIEW slot_stock AS
SELECT
  id AS slot_stock_id,
  box_slot_id AS slot_id,
  product_storage_id AS stock_level_id,
  CAST(quantity AS DECIMAL(20, 6)) AS quantity,
  batch_number AS batch,
  expiry_date AS expires_on,
  date_stored AS stored_at
FROM inventory_boxstorage;

-- One row per movement, all of them done. pyERP books on slots and keeps no place of the time of the movement, so the
-- locations stay NULL.
-- NOT PORTABLE: Flink has one time zone for a whole job.
CREATE VIEW stock_move AS
SELECT
  id AS move_id,
  product_id AS item_id,
  movement_type AS kind,
  'done' AS status,
  CAST(quantity AS DECIMAL(20, 6)) AS quantity,
  CAST(NULL AS BIGINT) AS from_location_id,
  CAST(NULL AS BIGINT) AS to_location_id,
  from_slot_id,
  to_slot_id,
  CASE WHEN EXTRACT(YEAR FROM `timestamp`) BETWEEN 1678 AND 2261 THEN `timestamp` END AS moved_at,
  CAST(
    CASE WHEN EXTRACT(YEAR FROM `timestamp`) BETWEEN 1678 AND 2261 THEN `timestamp` END
      AT TIME ZONE 'Europe/Berlin' AS DATE) AS moved_on,
  CAST(NULL AS DATE) AS planned_on,
  reference
FROM inventory_inventorymovement;

-- EMPTY: pyERP books movements on slots, not on locations
CREATE VIEW stock_posting AS
SELECT
  CAST(NULL AS BIGINT) AS move_id, CAST(NULL AS BIGINT) AS item_id, CAST(NULL AS BIGINT) AS location_id,
  CAST(NULL AS DECIMAL(20, 6)) AS quantity, CAST(NULL AS BOOLEAN) AS is_done, CAST(NULL AS BOOLEAN) AS is_reserved,
  CAST(NULL AS BOOLEAN) AS is_expected, CAST(NULL AS DATE) AS moved_on, CAST(NULL AS DATE) AS planned_on
WHERE FALSE;

-- EMPTY: pyERP has no shipments; its delivery notes are sales documents
CREATE VIEW shipment AS
SELECT
  CAST(NULL AS STRING) AS kind, CAST(NULL AS BIGINT) AS shipment_id, CAST(NULL AS STRING) AS number,
  CAST(NULL AS STRING) AS status, CAST(NULL AS BOOLEAN) AS is_open, CAST(NULL AS BIGINT) AS warehouse_id,
  CAST(NULL AS BIGINT) AS party_id, CAST(NULL AS DATE) AS planned_on, CAST(NULL AS DATE) AS shipped_on
WHERE FALSE;

-- EMPTY: pyERP has no reorder points
CREATE VIEW reorder_policy AS
SELECT
  CAST(NULL AS BIGINT) AS reorder_policy_id, CAST(NULL AS STRING) AS kind, CAST(NULL AS BIGINT) AS item_id,
  CAST(NULL AS BIGINT) AS location_id, CAST(NULL AS DECIMAL(20, 6)) AS minimum_quantity,
  CAST(NULL AS DECIMAL(20, 6)) AS target_quantity, CAST(NULL AS DECIMAL(20, 6)) AS maximum_quantity
WHERE FALSE;

-- One row per customer. The group is the one of now, not the one at the time of a sale.
CREATE VIEW customer AS
SELECT
  id AS customer_id,
  customer_number AS number,
  name,
  customer_group,
  delivery_block AS is_blocked,
  CAST(credit_limit AS DECIMAL(20, 2)) AS credit_limit
FROM sales_customer;

-- One row per supplier; the id is a text, a UUID here.
CREATE VIEW supplier AS
SELECT id AS supplier_id, creditor_id AS number, name
FROM business_supplier;

-- One row per sales paper of any type. pyERP has no column for the channel: the number's prefix tells it.
CREATE VIEW sales_paper AS
SELECT
  r.id AS document_id,
  CASE r.record_type
    WHEN 'PROPOSAL' THEN 'quote'
    WHEN 'ORDER_CONFIRMATION' THEN 'order'
    WHEN 'DELIVERY_NOTE' THEN 'delivery_note'
    WHEN 'INVOICE' THEN 'invoice'
    WHEN 'CREDIT_NOTE' THEN 'credit_note'
    ELSE 'other'
  END AS document_type,
  r.record_type AS source_type,
  r.record_number AS number,
  r.record_date AS document_date,
  CASE WHEN EXTRACT(YEAR FROM r.created_at) BETWEEN 1678 AND 2261 THEN r.created_at END AS created_at,
  r.customer_id,
  CASE
    WHEN r.record_number LIKE 'RK%' OR r.record_number LIKE 'GK%' THEN 'POS'
    WHEN r.record_number LIKE 'RW%' OR r.record_number LIKE 'GW%' THEN 'WEB'
    ELSE 'MANUAL'
  END AS channel,
  r.shipping_address_id AS ship_address_id,
  r.payment_terms_id,
  r.payment_status,
  r.delivery_status,
  r.payment_status = 'CANCELLED' AS is_cancelled,
  r.currency,
  r.subtotal AS net_amount,
  r.tax_amount,
  r.total_amount
FROM sales_salesrecord r;

-- The same without what only this file needs.
CREATE VIEW sales_document AS
SELECT
  document_id, document_type, source_type, number, document_date, created_at, customer_id, channel, payment_status,
  delivery_status, is_cancelled, currency, net_amount, total_amount
FROM sales_paper;

-- One row per line of a sales paper. Goods are the PRODUCT lines.
CREATE VIEW sales_paper_line AS
SELECT
  id AS line_id,
  sales_record_id AS document_id,
  `position` AS line_number,
  item_type AS kind,
  item_type = 'PRODUCT' AS is_goods,
  product_id AS item_id,
  quantity,
  unit_price,
  line_subtotal AS net_amount,
  fulfilled_quantity AS delivered_quantity,
  fulfillment_status AS status,
  fulfillment_status IN ('PENDING', 'PARTIAL') AS is_open
FROM sales_salesrecorditem;

-- One row per address.
CREATE VIEW address AS
SELECT id AS address_id, customer_id, country, postal_code, city
FROM sales_address;

-- One row per set of payment terms.
CREATE VIEW payment_terms AS
SELECT id AS payment_terms_id, name, days_due
FROM sales_paymentterms;

-- One row per order of a customer. Open: not cancelled, not or only partly delivered.
CREATE VIEW sales_order AS
SELECT
  document_id AS order_id,
  number,
  customer_id,
  CAST(NULL AS BIGINT) AS warehouse_id,
  document_date AS ordered_on,
  created_at AS ordered_at,
  delivery_status AS status,
  delivery_status,
  payment_status,
  CAST(NULL AS STRING) AS invoice_status,
  FALSE AS is_quote,
  is_cancelled,
  NOT is_cancelled AND delivery_status IN ('PENDING', 'PARTIALLY_DELIVERED') AS is_open,
  currency,
  CAST(NULL AS BIGINT) AS line_count,
  net_amount,
  total_amount
FROM sales_paper
WHERE document_type = 'order';

-- One row per line of an order. The lines of other papers are here too, since the type stands on the paper: join
-- `sales_order` to keep those of orders.
CREATE VIEW sales_order_line AS
SELECT
  line_id AS order_line_id,
  document_id AS order_id,
  line_number,
  kind,
  is_goods,
  item_id,
  quantity,
  unit_price,
  net_amount,
  delivered_quantity,
  is_open
FROM sales_paper_line;

-- One row per invoice or credit note, cancelled ones too. Without payment terms an invoice is due after 30 days.
CREATE VIEW sales_invoice AS
SELECT
  d.document_id AS invoice_id,
  d.document_type AS kind,
  d.number,
  d.customer_id,
  d.channel,
  d.ship_address_id,
  d.document_date AS invoiced_on,
  d.created_at AS invoiced_at,
  CASE WHEN d.document_date < DATE '9999-01-01' THEN d.document_date END + COALESCE(t.days_due, 30) AS due_on,
  d.payment_status,
  d.is_cancelled,
  d.payment_status IN ('PENDING', 'OVERDUE') AS is_unpaid,
  d.currency,
  d.net_amount,
  d.total_amount
FROM sales_paper d
LEFT JOIN payment_terms t ON t.payment_terms_id = d.payment_terms_id
WHERE d.document_type IN ('invoice', 'credit_note');

-- One row per line of an invoice or credit note; lines of other papers are here too, see `sales_order_line`.
CREATE VIEW sales_invoice_line AS
SELECT line_id AS invoice_line_id, document_id AS invoice_id, line_number, is_goods, item_id, quantity, unit_price, net_amount
FROM sales_paper_line;

-- EMPTY: pyERP has no purchase orders
CREATE VIEW purchase_order AS
SELECT
  CAST(NULL AS BIGINT) AS purchase_order_id, CAST(NULL AS STRING) AS number, CAST(NULL AS STRING) AS supplier_id,
  CAST(NULL AS BIGINT) AS warehouse_id, CAST(NULL AS DATE) AS ordered_on, CAST(NULL AS STRING) AS status,
  CAST(NULL AS STRING) AS delivery_status, CAST(NULL AS STRING) AS invoice_status, CAST(NULL AS BOOLEAN) AS is_quote,
  CAST(NULL AS BOOLEAN) AS is_cancelled, CAST(NULL AS BOOLEAN) AS is_open, CAST(NULL AS STRING) AS currency,
  CAST(NULL AS BIGINT) AS line_count, CAST(NULL AS DECIMAL(20, 2)) AS net_amount, CAST(NULL AS DECIMAL(20, 2)) AS total_amount
WHERE FALSE;

-- EMPTY: pyERP has no purchase orders
CREATE VIEW purchase_order_line AS
SELECT
  CAST(NULL AS BIGINT) AS purchase_order_line_id, CAST(NULL AS BIGINT) AS purchase_order_id, CAST(NULL AS BOOLEAN) AS is_goods,
  CAST(NULL AS BIGINT) AS item_id, CAST(NULL AS DECIMAL(20, 6)) AS quantity, CAST(NULL AS DECIMAL(24, 8)) AS unit_price,
  CAST(NULL AS DECIMAL(20, 2)) AS net_amount, CAST(NULL AS DATE) AS due_on
WHERE FALSE;

-- One row per production order. Due at its planned date; released once it is scheduled.
-- NOT PORTABLE: Flink has one time zone for a whole job.
CREATE VIEW production_order AS
SELECT
  id AS production_order_id,
  order_number AS number,
  form_number AS reference,
  CAST(NULL AS BIGINT) AS item_id,
  CAST(NULL AS STRING) AS unit,
  CAST(NULL AS BIGINT) AS warehouse_id,
  status,
  status IN ('draft', 'scheduled', 'in_progress') AS is_open,
  status IN ('scheduled', 'in_progress') AS is_released,
  status = 'cancelled' AS is_cancelled,
  CAST(quantity AS DECIMAL(20, 6)) AS quantity,
  priority,
  CAST(NULL AS DATE) AS planned_start_on,
  CAST(
    CASE WHEN EXTRACT(YEAR FROM planned_date) BETWEEN 1678 AND 2261 THEN planned_date END
      AT TIME ZONE 'Europe/Berlin' AS DATE) AS planned_on,
  CASE WHEN EXTRACT(YEAR FROM planned_date) BETWEEN 1678 AND 2261 THEN planned_date END AS due_at,
  CAST(NULL AS DATE) AS started_on,
  CAST(NULL AS DATE) AS finished_on,
  created_at
FROM production_productionorder;

-- One row per operation of a production order.
CREATE VIEW production_step AS
SELECT
  id AS step_id,
  production_order_id,
  item_number AS step_number,
  operation_type AS operation,
  legacy_kostenstelle_id AS workstation_id,
  status,
  status = 'cancelled' AS is_cancelled,
  status = 'completed' AS is_done,
  CAST(target_quantity AS DECIMAL(20, 6)) AS target_quantity,
  CAST(completed_quantity AS DECIMAL(20, 6)) AS completed_quantity,
  CAST(remaining_quantity AS DECIMAL(20, 6)) AS remaining_quantity,
  CAST(NULL AS DECIMAL(20, 4)) AS cost,
  start_date AS started_at
FROM production_productionorderitem;

-- EMPTY: pyERP does not record what production consumes
CREATE VIEW material_consumption AS
SELECT
  CAST(NULL AS BIGINT) AS move_id, CAST(NULL AS BIGINT) AS production_order_id, CAST(NULL AS BIGINT) AS item_id,
  CAST(NULL AS DECIMAL(20, 6)) AS quantity, CAST(NULL AS DECIMAL(24, 8)) AS unit_cost, CAST(NULL AS BOOLEAN) AS is_done,
  CAST(NULL AS DATE) AS moved_on
WHERE FALSE;

-- One row per workstation: the text on the operations is all that pyERP knows of one.
CREATE VIEW workstation AS
SELECT DISTINCT legacy_kostenstelle_id AS workstation_id, legacy_kostenstelle_id AS name
FROM production_productionorderitem
WHERE legacy_kostenstelle_id <> '';
