-- Purpose: Tryton's tables as the canonical relations every view is written on (docs/canonical.md).
-- Grain:   given above each view.
-- Units:   quantities in the item's stock unit (Tryton's default unit of the product), DECIMAL(20, 6): Tryton rounds
--          quantities to the unit's own digits, two as delivered, so six lose nothing but floating-point dust.
--          Amounts in the document's currency; line amounts are rounded half to even, as Tryton rounds them.
-- Late data: none dropped; a row that arrives late changes what it belongs to.
-- Source:  tables.sql.
--
-- A date from 2261 on gives no instant: nanoseconds, which some functions use inside, end there, and one typing error
-- must not stop a view. Tryton's business dates have no time of day: their instant is midnight UTC.

-- The one company of an installation. `today` is its calendar date: one row that changes at its midnight. Tryton's
-- company has no time zone unless one is set; another one, or another company, is set here, in this one statement.
-- NOT PORTABLE: Flink has one time zone for a whole job.
CREATE VIEW company AS
SELECT
  CAST(1 AS BIGINT) AS company_id,
  'USD' AS currency,
  'UTC' AS time_zone,
  CAST(CURRENT_TIMESTAMP AT TIME ZONE 'UTC' AS DATE) AS today;

-- One row per category.
CREATE VIEW item_category AS
SELECT id AS category_id, code, name, parent AS parent_id
FROM product_category;

-- The first category of each template; a template can be in several.
CREATE VIEW template_category AS
SELECT template, MIN(category) AS category_id
FROM product_template_product_category
GROUP BY template;

-- The list price of each template.
CREATE VIEW template_list_price AS
SELECT template, MIN(list_price) AS list_price
FROM product_list_price
WHERE product IS NULL AND company = 1
GROUP BY template;

-- The cost price of each product.
CREATE VIEW product_cost AS
SELECT product, MIN(cost_price) AS cost_price
FROM product_cost_price
WHERE company = 1
GROUP BY product;

-- One row per product, with the name and unit of its template.
CREATE VIEW item AS
SELECT
  p.id AS item_id,
  p.code AS sku,
  t.name,
  t.type AS kind,
  COALESCE(t.account_category, g.category_id) AS category_id,
  p.template AS family_id,
  u.symbol AS unit,
  p.active AND t.active AS is_active,
  CAST(l.list_price AS DECIMAL(24, 8)) AS list_price,
  CAST(c.cost_price AS DECIMAL(24, 8)) AS cost_price
FROM product_product p
LEFT JOIN product_template t ON t.id = p.template
LEFT JOIN product_uom u ON u.id = t.default_uom
LEFT JOIN template_category g ON g.template = p.template
LEFT JOIN template_list_price l ON l.template = p.template
LEFT JOIN product_cost c ON c.product = p.id;

-- One row per product that another one replaces.
CREATE VIEW item_substitute AS
SELECT id AS item_id, replaced_by AS substitute_item_id, 'replaced' AS reason
FROM product_product
WHERE replaced_by IS NOT NULL;

-- One row per output and input of a bill of material, in the units of the two items.
CREATE VIEW bom_line AS
SELECT
  i.id AS bom_line_id,
  i.bom AS bom_id,
  o.product AS item_id,
  i.product AS component_item_id,
  CAST(o.quantity * ou.factor / NULLIF(od.factor, 0) AS DECIMAL(20, 6)) AS output_quantity,
  CAST(i.quantity * iu.factor / NULLIF(idu.factor, 0) AS DECIMAL(20, 6)) AS component_quantity
FROM production_bom_input i
JOIN production_bom_output o ON o.bom = i.bom
JOIN product_uom iu ON iu.id = i.unit
JOIN product_uom ou ON ou.id = o.unit
JOIN product_product ip ON ip.id = i.product
JOIN product_template it ON it.id = ip.template
JOIN product_uom idu ON idu.id = it.default_uom
JOIN product_product op ON op.id = o.product
JOIN product_template ot ON ot.id = op.template
JOIN product_uom od ON od.id = ot.default_uom;

-- Each location with those above it, eight levels up.
CREATE VIEW location_path AS
SELECT
  l.id AS location_id, l.type AS kind,
  a.id AS a, a.type AS a_kind, b.id AS b, b.type AS b_kind, c.id AS c, c.type AS c_kind, d.id AS d, d.type AS d_kind,
  e.id AS e, e.type AS e_kind, f.id AS f, f.type AS f_kind, g.id AS g, g.type AS g_kind, h.id AS h, h.type AS h_kind
FROM stock_location l
LEFT JOIN stock_location a ON a.id = l.parent
LEFT JOIN stock_location b ON b.id = a.parent
LEFT JOIN stock_location c ON c.id = b.parent
LEFT JOIN stock_location d ON d.id = c.parent
LEFT JOIN stock_location e ON e.id = d.parent
LEFT JOIN stock_location f ON f.id = e.parent
LEFT JOIN stock_location g ON g.id = f.parent
LEFT JOIN stock_location h ON h.id = g.parent;

-- One row per location and location at or above it.
CREATE VIEW location_tree AS
SELECT location_id, location_id AS ancestor_id FROM location_path
UNION ALL SELECT location_id, a AS ancestor_id FROM location_path WHERE a IS NOT NULL
UNION ALL SELECT location_id, b AS ancestor_id FROM location_path WHERE b IS NOT NULL
UNION ALL SELECT location_id, c AS ancestor_id FROM location_path WHERE c IS NOT NULL
UNION ALL SELECT location_id, d AS ancestor_id FROM location_path WHERE d IS NOT NULL
UNION ALL SELECT location_id, e AS ancestor_id FROM location_path WHERE e IS NOT NULL
UNION ALL SELECT location_id, f AS ancestor_id FROM location_path WHERE f IS NOT NULL
UNION ALL SELECT location_id, g AS ancestor_id FROM location_path WHERE g IS NOT NULL
UNION ALL SELECT location_id, h AS ancestor_id FROM location_path WHERE h IS NOT NULL;

-- The nearest warehouse at or above each location.
CREATE VIEW location_warehouse AS
SELECT
  location_id,
  CASE
    WHEN kind = 'warehouse' THEN location_id
    WHEN a_kind = 'warehouse' THEN a
    WHEN b_kind = 'warehouse' THEN b
    WHEN c_kind = 'warehouse' THEN c
    WHEN d_kind = 'warehouse' THEN d
    WHEN e_kind = 'warehouse' THEN e
    WHEN f_kind = 'warehouse' THEN f
    WHEN g_kind = 'warehouse' THEN g
    WHEN h_kind = 'warehouse' THEN h
  END AS warehouse_id
FROM location_path;

-- One row per location of any type. `site` is the warehouse's name.
CREATE VIEW location AS
SELECT
  l.id AS location_id,
  l.code,
  l.name,
  l.type AS kind,
  w.name AS site,
  CAST(NULL AS STRING) AS country,
  l.parent AS parent_id,
  lw.warehouse_id,
  l.active AS is_active
FROM stock_location l
LEFT JOIN location_warehouse lw ON lw.location_id = l.id
LEFT JOIN stock_location w ON w.id = lw.warehouse_id;

-- EMPTY: Tryton has no storage slots
CREATE VIEW storage_slot AS
SELECT
  CAST(NULL AS BIGINT) AS slot_id, CAST(NULL AS STRING) AS code, CAST(NULL AS BIGINT) AS container_id,
  CAST(NULL AS BIGINT) AS location_id, CAST(NULL AS BOOLEAN) AS is_occupied
WHERE FALSE;

-- EMPTY: Tryton has no storage slots
CREATE VIEW slot_stock AS
SELECT
  CAST(NULL AS BIGINT) AS slot_stock_id, CAST(NULL AS BIGINT) AS slot_id, CAST(NULL AS BIGINT) AS stock_level_id,
  CAST(NULL AS DECIMAL(20, 6)) AS quantity, CAST(NULL AS STRING) AS batch, CAST(NULL AS DATE) AS expires_on,
  CAST(NULL AS TIMESTAMP(6) WITH TIME ZONE) AS stored_at
WHERE FALSE;

-- One row per move, whatever its state: `proposed` counts for nothing yet, `planned` and `reserved` are to come.
CREATE VIEW stock_move AS
SELECT
  m.id AS move_id,
  m.product AS item_id,
  CASE
    WHEN f.type = 'supplier' THEN 'RECEIPT'
    WHEN t.type = 'supplier' THEN 'RETURN_TO_SUPPLIER'
    WHEN t.type = 'customer' THEN 'SHIPMENT'
    WHEN f.type = 'customer' THEN 'RETURN'
    WHEN t.type = 'production' THEN 'CONSUMPTION'
    WHEN f.type = 'production' THEN 'OUTPUT'
    WHEN t.type = 'lost_found' OR f.type = 'lost_found' THEN 'ADJUSTMENT'
    ELSE 'TRANSFER'
  END AS kind,
  CASE m.state
    WHEN 'staging' THEN 'proposed'
    WHEN 'draft' THEN 'planned'
    WHEN 'assigned' THEN 'reserved'
    ELSE m.state
  END AS status,
  CAST(m.internal_quantity AS DECIMAL(20, 6)) AS quantity,
  m.from_location AS from_location_id,
  m.to_location AS to_location_id,
  CAST(NULL AS BIGINT) AS from_slot_id,
  CAST(NULL AS BIGINT) AS to_slot_id,
  CAST(CASE WHEN m.effective_date < DATE '2261-01-01' THEN m.effective_date END AS TIMESTAMP(6) WITH TIME ZONE) AS moved_at,
  m.effective_date AS moved_on,
  m.planned_date AS planned_on,
  m.origin AS reference
FROM tryton_stock_move m
LEFT JOIN stock_location f ON f.id = m.from_location
LEFT JOIN stock_location t ON t.id = m.to_location;

-- Two rows per move: into its destination and, negative, out of its origin.
CREATE VIEW stock_posting AS
SELECT id AS move_id, product AS item_id, to_location AS location_id, CAST(internal_quantity AS DECIMAL(20, 6)) AS quantity,
       state = 'done' AS is_done, state = 'assigned' AS is_reserved, state IN ('draft', 'assigned') AS is_expected,
       effective_date AS moved_on, planned_date AS planned_on
FROM tryton_stock_move
UNION ALL
SELECT id AS move_id, product AS item_id, from_location AS location_id, -CAST(internal_quantity AS DECIMAL(20, 6)) AS quantity,
       state = 'done' AS is_done, state = 'assigned' AS is_reserved, state IN ('draft', 'assigned') AS is_expected,
       effective_date AS moved_on, planned_date AS planned_on
FROM tryton_stock_move;

-- One row per item and storage location that done moves have touched up to today. Tryton keeps no stock table: the
-- stock is the sum of the moves, and can be below zero when a move was forced.
CREATE VIEW stock_level AS
SELECT
  CAST(NULL AS BIGINT) AS stock_level_id,
  p.item_id,
  p.location_id,
  CAST(SUM(p.quantity) AS DECIMAL(20, 6)) AS quantity,
  'AVAILABLE' AS status,
  FALSE AS has_slots
FROM stock_posting p
JOIN stock_location l ON l.id = p.location_id
CROSS JOIN company c
WHERE l.type = 'storage' AND p.is_done AND COALESCE(p.moved_on, p.planned_on) <= c.today
GROUP BY p.item_id, p.location_id;

-- One row per order point. Of kind `internal` on a storage location, else on a warehouse.
CREATE VIEW reorder_policy AS
SELECT
  id AS reorder_policy_id,
  type AS kind,
  product AS item_id,
  location AS location_id,
  CAST(min_quantity AS DECIMAL(20, 6)) AS minimum_quantity,
  CAST(target_quantity AS DECIMAL(20, 6)) AS target_quantity,
  CAST(max_quantity AS DECIMAL(20, 6)) AS maximum_quantity
FROM stock_order_point;

-- One row per shipment of any kind; the id is unique within its kind.
CREATE VIEW shipment AS
SELECT 'out' AS kind, id AS shipment_id, number, state AS status, state IN ('draft', 'waiting', 'assigned', 'picked', 'packed') AS is_open,
       warehouse AS warehouse_id, customer AS party_id, planned_date AS planned_on, effective_date AS shipped_on
FROM stock_shipment_out
UNION ALL
SELECT 'in' AS kind, id AS shipment_id, number, state AS status, state = 'draft' AS is_open,
       warehouse AS warehouse_id, supplier AS party_id, planned_date AS planned_on, effective_date AS shipped_on
FROM stock_shipment_in
UNION ALL
SELECT 'out_return' AS kind, id AS shipment_id, number, state AS status, state = 'draft' AS is_open,
       warehouse AS warehouse_id, customer AS party_id, planned_date AS planned_on, effective_date AS shipped_on
FROM stock_shipment_out_return
UNION ALL
SELECT 'internal' AS kind, id AS shipment_id, number, state AS status, state IN ('draft', 'waiting', 'assigned', 'packed', 'shipped') AS is_open,
       CAST(NULL AS BIGINT) AS warehouse_id, CAST(NULL AS BIGINT) AS party_id, planned_date AS planned_on, effective_date AS shipped_on
FROM stock_shipment_internal;

-- One row per party: Tryton does not tell customers from suppliers. It has no customer groups, blocks or limits either.
CREATE VIEW customer AS
SELECT
  id AS customer_id,
  code AS number,
  name,
  CAST(NULL AS STRING) AS customer_group,
  FALSE AS is_blocked,
  CAST(NULL AS DECIMAL(20, 2)) AS credit_limit
FROM party_party;

-- One row per party; the id is a text, as other ERPs have no number here.
CREATE VIEW supplier AS
SELECT CAST(id AS STRING) AS supplier_id, code AS number, name
FROM party_party;

-- One row per address.
CREATE VIEW address AS
SELECT id AS address_id, party AS customer_id, CAST(NULL AS STRING) AS country, postal_code, city
FROM party_address;

-- One row per unit of measure of a product: what a quantity is multiplied by to be in the product's default unit.
CREATE VIEW product_unit AS
SELECT p.id AS product, u.id AS unit, u.factor / NULLIF(d.factor, 0) AS factor
FROM product_product p
JOIN product_template t ON t.id = p.template
JOIN product_uom d ON d.id = t.default_uom
JOIN product_uom u ON u.category = d.category;

-- Units of each sale line that have reached a customer, in the product's default unit.
CREATE VIEW sale_line_delivered AS
SELECT m.origin, CAST(SUM(CAST(m.internal_quantity AS DECIMAL(20, 6))) AS DECIMAL(20, 6)) AS quantity
FROM tryton_stock_move m
JOIN stock_location t ON t.id = m.to_location
WHERE m.state = 'done' AND t.type = 'customer' AND m.origin LIKE 'sale.line,%'
GROUP BY m.origin;

-- The exact product of quantity and price of each sale line, to fourteen digits.
CREATE VIEW sale_line_amount AS
SELECT
  l.id,
  CAST(CAST(l.quantity AS DECIMAL(20, 6)) * CAST(l.unit_price AS DECIMAL(24, 8)) AS DECIMAL(32, 14)) AS exact
FROM sale_line l
WHERE l.type = 'line';

-- One row per line of a sale, comments and titles too. Quantities in the item's default unit, the price per unit of sale.
-- An exact half cent goes to the even cent.
CREATE VIEW sales_order_line AS
SELECT
  l.id AS order_line_id,
  l.sale AS order_id,
  l.sequence AS line_number,
  l.type AS kind,
  l.type = 'line' AND l.product IS NOT NULL AS is_goods,
  l.product AS item_id,
  CAST(l.quantity * COALESCE(u.factor, 1) AS DECIMAL(20, 6)) AS quantity,
  CAST(l.unit_price AS DECIMAL(24, 8)) AS unit_price,
  CAST(
    CASE
      WHEN ABS(a.exact % CAST(0.02 AS DECIMAL(32, 14))) = CAST(0.005 AS DECIMAL(32, 14))
        THEN a.exact - a.exact % CAST(0.02 AS DECIMAL(32, 14))
      ELSE ROUND(a.exact, 2)
    END AS DECIMAL(20, 2)) AS net_amount,
  COALESCE(d.quantity, 0) AS delivered_quantity,
  l.type = 'line' AND l.quantity > 0 AS is_open
FROM sale_line l
LEFT JOIN sale_line_amount a ON a.id = l.id
LEFT JOIN product_unit u ON u.product = l.product AND u.unit = l.unit
LEFT JOIN sale_line_delivered d ON d.origin = 'sale.line,' || CAST(l.id AS STRING);

-- The lines of each sale added up.
CREATE VIEW sale_total AS
SELECT order_id, COUNT(*) AS line_count, CAST(SUM(net_amount) AS DECIMAL(20, 2)) AS net_amount
FROM sales_order_line
GROUP BY order_id;

-- One row per sale, quotations too. Open: confirmed and not sent in full. The total is net plus the tax that Tryton has
-- worked out; it works none out before the sale is quoted.
CREATE VIEW sales_order AS
SELECT
  s.id AS order_id,
  s.number,
  s.party AS customer_id,
  s.warehouse AS warehouse_id,
  s.sale_date AS ordered_on,
  CAST(CASE WHEN s.sale_date < DATE '2261-01-01' THEN s.sale_date END AS TIMESTAMP(6) WITH TIME ZONE) AS ordered_at,
  s.state AS status,
  s.shipment_state AS delivery_status,
  CAST(NULL AS STRING) AS payment_status,
  s.invoice_state AS invoice_status,
  s.state IN ('draft', 'quotation') AS is_quote,
  s.state = 'cancelled' AS is_cancelled,
  s.state IN ('confirmed', 'processing') AND s.shipment_state <> 'sent' AS is_open,
  y.code AS currency,
  COALESCE(t.line_count, 0) AS line_count,
  COALESCE(t.net_amount, 0) AS net_amount,
  CAST(COALESCE(t.net_amount, 0) + CAST(COALESCE(s.tax_amount_cache, 0) AS DECIMAL(20, 2)) AS DECIMAL(20, 2)) AS total_amount
FROM sale_sale s
LEFT JOIN sale_total t ON t.order_id = s.id
LEFT JOIN currency_currency y ON y.id = s.currency;

-- One row per sale: the other sales papers are not in the capture's modules.
CREATE VIEW sales_document AS
SELECT
  o.order_id AS document_id,
  CASE WHEN o.is_quote THEN 'quote' ELSE 'order' END AS document_type,
  'sale' AS source_type,
  o.number,
  o.ordered_on AS document_date,
  o.ordered_at AS created_at,
  o.customer_id,
  'MANUAL' AS channel,
  o.payment_status,
  o.delivery_status,
  o.is_cancelled,
  o.currency,
  o.net_amount,
  o.total_amount
FROM sales_order o;

-- EMPTY: Tryton's invoices are not among the tables read
CREATE VIEW sales_invoice AS
SELECT
  CAST(NULL AS BIGINT) AS invoice_id, CAST(NULL AS STRING) AS kind, CAST(NULL AS STRING) AS number,
  CAST(NULL AS BIGINT) AS customer_id, CAST(NULL AS STRING) AS channel, CAST(NULL AS BIGINT) AS ship_address_id,
  CAST(NULL AS DATE) AS invoiced_on, CAST(NULL AS TIMESTAMP(6) WITH TIME ZONE) AS invoiced_at, CAST(NULL AS DATE) AS due_on,
  CAST(NULL AS STRING) AS payment_status, CAST(NULL AS BOOLEAN) AS is_cancelled, CAST(NULL AS BOOLEAN) AS is_unpaid,
  CAST(NULL AS STRING) AS currency, CAST(NULL AS DECIMAL(12, 2)) AS net_amount, CAST(NULL AS DECIMAL(12, 2)) AS total_amount
WHERE FALSE;

-- EMPTY: Tryton's invoices are not among the tables read
CREATE VIEW sales_invoice_line AS
SELECT
  CAST(NULL AS BIGINT) AS invoice_line_id, CAST(NULL AS BIGINT) AS invoice_id, CAST(NULL AS INT) AS line_number,
  CAST(NULL AS BOOLEAN) AS is_goods, CAST(NULL AS BIGINT) AS item_id, CAST(NULL AS DECIMAL(10, 2)) AS quantity,
  CAST(NULL AS DECIMAL(12, 2)) AS unit_price, CAST(NULL AS DECIMAL(12, 2)) AS net_amount
WHERE FALSE;

-- The exact product of quantity and price of each purchase line, to fourteen digits.
CREATE VIEW purchase_line_amount AS
SELECT
  l.id,
  CAST(CAST(l.quantity AS DECIMAL(20, 6)) * CAST(l.unit_price AS DECIMAL(24, 8)) AS DECIMAL(32, 14)) AS exact
FROM purchase_line l
WHERE l.type = 'line';

-- One row per line of a purchase, comments and titles too; see `sales_order_line`.
CREATE VIEW purchase_order_line AS
SELECT
  l.id AS purchase_order_line_id,
  l.purchase AS purchase_order_id,
  l.type = 'line' AND l.product IS NOT NULL AS is_goods,
  l.product AS item_id,
  CAST(l.quantity * COALESCE(u.factor, 1) AS DECIMAL(20, 6)) AS quantity,
  CAST(l.unit_price AS DECIMAL(24, 8)) AS unit_price,
  CAST(
    CASE
      WHEN ABS(a.exact % CAST(0.02 AS DECIMAL(32, 14))) = CAST(0.005 AS DECIMAL(32, 14))
        THEN a.exact - a.exact % CAST(0.02 AS DECIMAL(32, 14))
      ELSE ROUND(a.exact, 2)
    END AS DECIMAL(20, 2)) AS net_amount,
  l.delivery_date_store AS due_on
FROM purchase_line l
LEFT JOIN purchase_line_amount a ON a.id = l.id
LEFT JOIN product_unit u ON u.product = l.product AND u.unit = l.unit;

-- The lines of each purchase added up.
CREATE VIEW purchase_total AS
SELECT purchase_order_id, COUNT(*) AS line_count, CAST(SUM(net_amount) AS DECIMAL(20, 2)) AS net_amount
FROM purchase_order_line
GROUP BY purchase_order_id;

-- One row per purchase, quotations too. Open: confirmed and not received in full.
CREATE VIEW purchase_order AS
SELECT
  p.id AS purchase_order_id,
  p.number,
  CAST(p.party AS STRING) AS supplier_id,
  p.warehouse AS warehouse_id,
  p.purchase_date AS ordered_on,
  p.state AS status,
  p.shipment_state AS delivery_status,
  p.invoice_state AS invoice_status,
  p.state IN ('draft', 'quotation') AS is_quote,
  p.state = 'cancelled' AS is_cancelled,
  p.state IN ('confirmed', 'processing') AND p.shipment_state <> 'received' AS is_open,
  y.code AS currency,
  COALESCE(t.line_count, 0) AS line_count,
  COALESCE(t.net_amount, 0) AS net_amount,
  CAST(COALESCE(t.net_amount, 0) + CAST(COALESCE(p.tax_amount_cache, 0) AS DECIMAL(20, 2)) AS DECIMAL(20, 2)) AS total_amount
FROM purchase_purchase p
LEFT JOIN purchase_total t ON t.purchase_order_id = p.id
LEFT JOIN currency_currency y ON y.id = p.currency;

-- One row per production. Late from the midnight after its planned date. A request is a proposal of the supply run, not
-- yet an order.
CREATE VIEW production_order AS
SELECT
  p.id AS production_order_id,
  p.number,
  p.reference,
  p.product AS item_id,
  u.symbol AS unit,
  p.warehouse AS warehouse_id,
  p.state AS status,
  p.state IN ('draft', 'waiting', 'assigned', 'running') AS is_open,
  p.state IN ('waiting', 'assigned', 'running') AS is_released,
  p.state = 'cancelled' AS is_cancelled,
  CAST(p.quantity AS DECIMAL(20, 6)) AS quantity,
  CAST(NULL AS INT) AS priority,
  p.planned_start_date AS planned_start_on,
  p.planned_date AS planned_on,
  CAST(CASE WHEN p.planned_date < DATE '2261-01-01' THEN p.planned_date END + INTERVAL '1' DAY AS TIMESTAMP(6) WITH TIME ZONE) AS due_at,
  p.effective_start_date AS started_on,
  p.effective_date AS finished_on,
  CAST(p.create_date AS TIMESTAMP(6) WITH TIME ZONE) AS created_at
FROM production p
LEFT JOIN product_uom u ON u.id = p.unit;

-- The cost of each work: the sum of its cycles.
CREATE VIEW work_cost AS
SELECT work, CAST(SUM(CAST(cost AS DECIMAL(20, 4))) AS DECIMAL(20, 4)) AS cost
FROM production_work_cycle
GROUP BY work;

-- One row per work of a production. Tryton does not count pieces per work: a finished work has done the whole order.
CREATE VIEW production_step AS
SELECT
  w.id AS step_id,
  w.production AS production_order_id,
  w.sequence AS step_number,
  o.name AS operation,
  CAST(w.work_center AS STRING) AS workstation_id,
  w.state AS status,
  FALSE AS is_cancelled,
  w.state IN ('finished', 'done') AS is_done,
  CAST(p.quantity AS DECIMAL(20, 6)) AS target_quantity,
  CASE WHEN w.state IN ('finished', 'done') THEN CAST(p.quantity AS DECIMAL(20, 6)) ELSE CAST(0 AS DECIMAL(20, 6)) END AS completed_quantity,
  CASE WHEN w.state IN ('finished', 'done') THEN CAST(0 AS DECIMAL(20, 6)) ELSE CAST(p.quantity AS DECIMAL(20, 6)) END AS remaining_quantity,
  c.cost,
  CAST(NULL AS TIMESTAMP(6) WITH TIME ZONE) AS started_at
FROM production_work w
LEFT JOIN production p ON p.id = w.production
LEFT JOIN production_routing_operation o ON o.id = w.operation
LEFT JOIN work_cost c ON c.work = w.id;

-- One row per move into a production that is not cancelled, at the cost booked, else at the cost of now.
CREATE VIEW material_consumption AS
SELECT
  m.id AS move_id,
  m.production_input AS production_order_id,
  m.product AS item_id,
  CAST(m.internal_quantity AS DECIMAL(20, 6)) AS quantity,
  CAST(COALESCE(m.cost_price, c.cost_price) AS DECIMAL(24, 8)) AS unit_cost,
  m.state = 'done' AS is_done,
  COALESCE(m.effective_date, m.planned_date) AS moved_on
FROM tryton_stock_move m
LEFT JOIN product_cost c ON c.product = m.product
WHERE m.production_input IS NOT NULL AND m.state <> 'cancelled';

-- One row per work centre.
CREATE VIEW workstation AS
SELECT CAST(id AS STRING) AS workstation_id, name
FROM production_work_center;
