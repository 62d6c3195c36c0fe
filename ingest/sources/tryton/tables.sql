-- Purpose: the tables of Tryton 8 (on PostgreSQL) that Andon reads, as Debezium sends them.
-- Grain:   one row per row of the ERP's table; the key is the ERP's primary key.
-- Units:   quantities in the unit that the row names, as Tryton's floating-point numbers; the canonical relations make
--          exact decimals of them. Intervals are microseconds, as Debezium sends them.
-- Late data: event times are business dates of the rows; no view drops late rows.
-- Source:  Debezium 3 PostgreSQL connector, one topic per table, `<prefix>.public.<table>` with any prefix.
--
-- Tryton's decimals have no fixed number of digits: the database column is `numeric` and every value comes with a
-- scale of its own. DECIMAL(38, 12) holds any price or cost with up to twelve decimals below 10^26; Tryton's own default
-- is four. A value with more digits goes to the dead letters rather than being rounded silently.
-- Everything but the key may be NULL: rows can be older than a column.

-- The companies.
CREATE TABLE company_company (
  id          BIGINT NOT NULL,
  party       BIGINT,
  currency    BIGINT,
  timezone    STRING,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.company_company',
  'format' = 'debezium-json'
);

-- Currencies.
CREATE TABLE currency_currency (
  id          BIGINT NOT NULL,
  code        STRING,
  name        STRING,
  digits      INT,
  rounding    DECIMAL(38, 12),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.currency_currency',
  'format' = 'debezium-json'
);

-- Parties: customers, suppliers and the companies themselves. A merged party names its successor.
CREATE TABLE party_party (
  id             BIGINT NOT NULL,
  code           STRING,
  name           STRING,
  active         BOOLEAN,
  replaced_by    BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.party_party',
  'format' = 'debezium-json'
);

-- Addresses of parties.
CREATE TABLE party_address (
  id             BIGINT NOT NULL,
  party          BIGINT,
  city           STRING,
  postal_code    STRING,
  country        BIGINT,
  active         BOOLEAN,
  delivery       BOOLEAN,
  invoice        BOOLEAN,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.party_address',
  'format' = 'debezium-json'
);

-- Product categories, a tree.
CREATE TABLE product_category (
  id            BIGINT NOT NULL,
  code          STRING,
  name          STRING,
  parent        BIGINT,
  accounting    BOOLEAN,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.product_category',
  'format' = 'debezium-json'
);

-- Templates hold the name and the unit of their variants.
CREATE TABLE product_template (
  id                  BIGINT NOT NULL,
  code                STRING,
  name                STRING,
  type                STRING,
  default_uom         BIGINT,
  active              BOOLEAN,
  consumable          BOOLEAN,
  salable             BOOLEAN,
  purchasable         BOOLEAN,
  producible          BOOLEAN,
  account_category    BIGINT,
  sale_uom            BIGINT,
  purchase_uom        BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.product_template',
  'format' = 'debezium-json'
);

-- Products are the variants of templates.
CREATE TABLE product_product (
  id             BIGINT NOT NULL,
  template       BIGINT,
  code           STRING,
  suffix_code    STRING,
  active         BOOLEAN,
  replaced_by    BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.product_product',
  'format' = 'debezium-json'
);

-- Which categories a template is in. The ERP's table name has a hyphen.
CREATE TABLE product_template_product_category (
  id          BIGINT NOT NULL,
  template    BIGINT,
  category    BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.product_template-product_category',
  'format' = 'debezium-json'
);

-- List prices, per template or product and company.
CREATE TABLE product_list_price (
  id            BIGINT NOT NULL,
  template      BIGINT,
  product       BIGINT,
  company       BIGINT,
  list_price    DECIMAL(38, 12),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.product_list_price',
  'format' = 'debezium-json'
);

-- Cost prices, per product and company.
CREATE TABLE product_cost_price (
  id            BIGINT NOT NULL,
  product       BIGINT,
  company       BIGINT,
  cost_price    DECIMAL(38, 12),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.product_cost_price',
  'format' = 'debezium-json'
);

-- Units of measure: a quantity times `factor` is in the category's base unit.
CREATE TABLE product_uom (
  id          BIGINT NOT NULL,
  category    BIGINT,
  name        STRING,
  symbol      STRING,
  factor      DOUBLE,
  rate        DOUBLE,
  rounding    DOUBLE,
  digits      INT,
  active      BOOLEAN,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.product_uom',
  'format' = 'debezium-json'
);

-- Kinds of units.
CREATE TABLE product_uom_category (
  id      BIGINT NOT NULL,
  name    STRING,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.product_uom_category',
  'format' = 'debezium-json'
);

-- Locations, a tree.
CREATE TABLE stock_location (
  id                     BIGINT NOT NULL,
  code                   STRING,
  name                   STRING,
  type                   STRING,
  parent                 BIGINT,
  active                 BOOLEAN,
  input_location         BIGINT,
  output_location        BIGINT,
  storage_location       BIGINT,
  production_location    BIGINT,
  lost_found_location    BIGINT,
  `left`                 INT,
  `right`                INT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.stock_location',
  'format' = 'debezium-json'
);

-- Lead times between warehouses, in microseconds.
CREATE TABLE stock_location_lead_time (
  id                BIGINT NOT NULL,
  warehouse_from    BIGINT,
  warehouse_to      BIGINT,
  lead_time         BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.stock_location_lead_time',
  'format' = 'debezium-json'
);

-- Stock moves, under a name of their own, since the canonical relation is called stock_move. `internal_quantity` is in the product's default unit.
CREATE TABLE tryton_stock_move (
  id                   BIGINT NOT NULL,
  product              BIGINT,
  unit                 BIGINT,
  quantity             DOUBLE,
  internal_quantity    DOUBLE,
  from_location        BIGINT,
  to_location          BIGINT,
  planned_date         DATE,
  effective_date       DATE,
  state                STRING,
  shipment             STRING,
  origin               STRING,
  production_input     BIGINT,
  production_output    BIGINT,
  unit_price           DECIMAL(38, 12),
  currency             BIGINT,
  cost_price           DECIMAL(38, 12),
  company              BIGINT,
  PRIMARY KEY (id) NOT ENFORCED,
  WATERMARK FOR effective_date AS effective_date - INTERVAL '7' DAY
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.stock_move',
  'format' = 'debezium-json'
);

-- Shipments from suppliers.
CREATE TABLE stock_shipment_in (
  id                BIGINT NOT NULL,
  number            STRING,
  reference         STRING,
  state             STRING,
  supplier          BIGINT,
  warehouse         BIGINT,
  planned_date      DATE,
  effective_date    DATE,
  company           BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.stock_shipment_in',
  'format' = 'debezium-json'
);

-- Returns to suppliers.
CREATE TABLE stock_shipment_in_return (
  id                BIGINT NOT NULL,
  number            STRING,
  reference         STRING,
  state             STRING,
  supplier          BIGINT,
  from_location     BIGINT,
  to_location       BIGINT,
  planned_date      DATE,
  effective_date    DATE,
  company           BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.stock_shipment_in_return',
  'format' = 'debezium-json'
);

-- Shipments to customers.
CREATE TABLE stock_shipment_out (
  id                BIGINT NOT NULL,
  number            STRING,
  reference         STRING,
  state             STRING,
  customer          BIGINT,
  warehouse         BIGINT,
  planned_date      DATE,
  effective_date    DATE,
  company           BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.stock_shipment_out',
  'format' = 'debezium-json'
);

-- Returns from customers.
CREATE TABLE stock_shipment_out_return (
  id                BIGINT NOT NULL,
  number            STRING,
  reference         STRING,
  state             STRING,
  customer          BIGINT,
  warehouse         BIGINT,
  planned_date      DATE,
  effective_date    DATE,
  company           BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.stock_shipment_out_return',
  'format' = 'debezium-json'
);

-- Shipments within the company.
CREATE TABLE stock_shipment_internal (
  id                      BIGINT NOT NULL,
  number                  STRING,
  reference               STRING,
  state                   STRING,
  from_location           BIGINT,
  to_location             BIGINT,
  planned_start_date      DATE,
  planned_date            DATE,
  effective_start_date    DATE,
  effective_date          DATE,
  company                 BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.stock_shipment_internal',
  'format' = 'debezium-json'
);

-- Stock counts.
CREATE TABLE stock_inventory (
  id          BIGINT NOT NULL,
  number      STRING,
  state       STRING,
  location    BIGINT,
  `date`      DATE,
  company     BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.stock_inventory',
  'format' = 'debezium-json'
);

-- Counted quantities.
CREATE TABLE stock_inventory_line (
  id                   BIGINT NOT NULL,
  inventory            BIGINT,
  product              BIGINT,
  expected_quantity    DOUBLE,
  quantity             DOUBLE,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.stock_inventory_line',
  'format' = 'debezium-json'
);

-- Reorder points.
CREATE TABLE stock_order_point (
  id                 BIGINT NOT NULL,
  type               STRING,
  product            BIGINT,
  location           BIGINT,
  min_quantity       DOUBLE,
  target_quantity    DOUBLE,
  max_quantity       DOUBLE,
  company            BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.stock_order_point',
  'format' = 'debezium-json'
);

-- Forecasts of consumption.
CREATE TABLE stock_forecast (
  id             BIGINT NOT NULL,
  warehouse      BIGINT,
  destination    BIGINT,
  from_date      DATE,
  to_date        DATE,
  state          STRING,
  company        BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.stock_forecast',
  'format' = 'debezium-json'
);

-- Lines of forecasts.
CREATE TABLE stock_forecast_line (
  id                  BIGINT NOT NULL,
  forecast            BIGINT,
  product             BIGINT,
  unit                BIGINT,
  quantity            DOUBLE,
  minimal_quantity    DOUBLE,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.stock_forecast_line',
  'format' = 'debezium-json'
);

-- Sales. The amounts are NULL until the sale is quoted.
CREATE TABLE sale_sale (
  id                      BIGINT NOT NULL,
  number                  STRING,
  reference               STRING,
  state                   STRING,
  party                   BIGINT,
  warehouse               BIGINT,
  currency                BIGINT,
  sale_date               DATE,
  shipping_date           DATE,
  shipment_state          STRING,
  invoice_state           STRING,
  shipment_method         STRING,
  invoice_method          STRING,
  untaxed_amount_cache    DECIMAL(38, 12),
  tax_amount_cache        DECIMAL(38, 12),
  total_amount_cache      DECIMAL(38, 12),
  company                 BIGINT,
  create_date             TIMESTAMP(6),
  PRIMARY KEY (id) NOT ENFORCED,
  WATERMARK FOR sale_date AS sale_date - INTERVAL '7' DAY
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.sale_sale',
  'format' = 'debezium-json'
);

-- Lines of sales; a negative quantity is a return.
CREATE TABLE sale_line (
  id                     BIGINT NOT NULL,
  sale                   BIGINT,
  sequence               INT,
  type                   STRING,
  product                BIGINT,
  unit                   BIGINT,
  quantity               DOUBLE,
  actual_quantity        DOUBLE,
  quantity_to_ship       DOUBLE,
  quantity_to_invoice    DOUBLE,
  unit_price             DECIMAL(38, 12),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.sale_line',
  'format' = 'debezium-json'
);

-- Purchases. The amounts are NULL until the purchase is quoted.
CREATE TABLE purchase_purchase (
  id                      BIGINT NOT NULL,
  number                  STRING,
  reference               STRING,
  state                   STRING,
  party                   BIGINT,
  warehouse               BIGINT,
  currency                BIGINT,
  purchase_date           DATE,
  delivery_date           DATE,
  shipment_state          STRING,
  invoice_state           STRING,
  invoice_method          STRING,
  untaxed_amount_cache    DECIMAL(38, 12),
  tax_amount_cache        DECIMAL(38, 12),
  total_amount_cache      DECIMAL(38, 12),
  company                 BIGINT,
  create_date             TIMESTAMP(6),
  PRIMARY KEY (id) NOT ENFORCED,
  WATERMARK FOR purchase_date AS purchase_date - INTERVAL '7' DAY
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.purchase_purchase',
  'format' = 'debezium-json'
);

-- Lines of purchases.
CREATE TABLE purchase_line (
  id                     BIGINT NOT NULL,
  purchase               BIGINT,
  sequence               INT,
  type                   STRING,
  product                BIGINT,
  product_supplier       BIGINT,
  unit                   BIGINT,
  quantity               DOUBLE,
  actual_quantity        DOUBLE,
  quantity_to_invoice    DOUBLE,
  unit_price             DECIMAL(38, 12),
  delivery_date_store    DATE,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.purchase_line',
  'format' = 'debezium-json'
);

-- Requests to purchase; drafts are deleted and made anew by each supply run.
CREATE TABLE purchase_request (
  id                   BIGINT NOT NULL,
  product              BIGINT,
  unit                 BIGINT,
  quantity             DOUBLE,
  computed_quantity    DOUBLE,
  stock_level          DOUBLE,
  party                BIGINT,
  warehouse            BIGINT,
  purchase_date        DATE,
  supply_date          DATE,
  state                STRING,
  origin               STRING,
  purchase_line        BIGINT,
  company              BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.purchase_request',
  'format' = 'debezium-json'
);

-- Who supplies what; lead times in microseconds.
CREATE TABLE purchase_product_supplier (
  id           BIGINT NOT NULL,
  template     BIGINT,
  product      BIGINT,
  party        BIGINT,
  currency     BIGINT,
  lead_time    BIGINT,
  sequence     INT,
  active       BOOLEAN,
  company      BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.purchase_product_supplier',
  'format' = 'debezium-json'
);

-- Productions.
CREATE TABLE production (
  id                      BIGINT NOT NULL,
  number                  STRING,
  reference               STRING,
  state                   STRING,
  type                    STRING,
  product                 BIGINT,
  unit                    BIGINT,
  quantity                DOUBLE,
  bom                     BIGINT,
  routing                 BIGINT,
  work_center             BIGINT,
  warehouse               BIGINT,
  location                BIGINT,
  planned_start_date      DATE,
  planned_date            DATE,
  effective_start_date    DATE,
  effective_date          DATE,
  origin                  STRING,
  company                 BIGINT,
  create_date             TIMESTAMP(6),
  PRIMARY KEY (id) NOT ENFORCED,
  WATERMARK FOR effective_date AS effective_date - INTERVAL '7' DAY
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.production',
  'format' = 'debezium-json'
);

-- Works of productions, one per step of the routing.
CREATE TABLE production_work (
  id             BIGINT NOT NULL,
  production     BIGINT,
  operation      BIGINT,
  work_center    BIGINT,
  sequence       INT,
  state          STRING,
  company        BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.production_work',
  'format' = 'debezium-json'
);

-- Cycles of works; durations in microseconds.
CREATE TABLE production_work_cycle (
  id          BIGINT NOT NULL,
  work        BIGINT,
  state       STRING,
  duration    BIGINT,
  cost        DECIMAL(38, 12),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.production_work_cycle',
  'format' = 'debezium-json'
);

-- Work centres.
CREATE TABLE production_work_center (
  id             BIGINT NOT NULL,
  name           STRING,
  category       BIGINT,
  parent         BIGINT,
  warehouse      BIGINT,
  cost_method    STRING,
  cost_price     DECIMAL(38, 12),
  active         BOOLEAN,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.production_work_center',
  'format' = 'debezium-json'
);

-- Kinds of work centres.
CREATE TABLE production_work_center_category (
  id      BIGINT NOT NULL,
  name    STRING,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.production_work_center_category',
  'format' = 'debezium-json'
);

-- Routings.
CREATE TABLE production_routing (
  id        BIGINT NOT NULL,
  name      STRING,
  active    BOOLEAN,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.production_routing',
  'format' = 'debezium-json'
);

-- Steps of routings.
CREATE TABLE production_routing_step (
  id           BIGINT NOT NULL,
  routing      BIGINT,
  operation    BIGINT,
  sequence     INT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.production_routing_step',
  'format' = 'debezium-json'
);

-- Operations.
CREATE TABLE production_routing_operation (
  id                      BIGINT NOT NULL,
  name                    STRING,
  work_center_category    BIGINT,
  active                  BOOLEAN,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.production_routing_operation',
  'format' = 'debezium-json'
);

-- Bills of material.
CREATE TABLE production_bom (
  id         BIGINT NOT NULL,
  code       STRING,
  name       STRING,
  active     BOOLEAN,
  phantom    BOOLEAN,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.production_bom',
  'format' = 'debezium-json'
);

-- What a bill of material takes.
CREATE TABLE production_bom_input (
  id             BIGINT NOT NULL,
  bom            BIGINT,
  product        BIGINT,
  unit           BIGINT,
  quantity       DOUBLE,
  phantom_bom    BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.production_bom_input',
  'format' = 'debezium-json'
);

-- What a bill of material makes.
CREATE TABLE production_bom_output (
  id             BIGINT NOT NULL,
  bom            BIGINT,
  product        BIGINT,
  unit           BIGINT,
  quantity       DOUBLE,
  phantom_bom    BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.production_bom_output',
  'format' = 'debezium-json'
);

-- Which bill of material and routing a product is made by; the lowest sequence first.
CREATE TABLE product_product_production_bom (
  id          BIGINT NOT NULL,
  product     BIGINT,
  bom         BIGINT,
  routing     BIGINT,
  sequence    INT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.product_product-production_bom',
  'format' = 'debezium-json'
);

-- Lead times of production, in microseconds.
CREATE TABLE production_lead_time (
  id           BIGINT NOT NULL,
  product      BIGINT,
  bom          BIGINT,
  routing      BIGINT,
  lead_time    BIGINT,
  sequence     INT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.production_lead_time',
  'format' = 'debezium-json'
);
