-- Purpose: the tables of pyERP (Django on PostgreSQL) that Andon reads, as Debezium sends them.
-- Grain:   one row per row of the ERP's table; the key is the ERP's primary key.
-- Units:   amounts in the document's currency; quantities in pieces; weights in grams.
-- Late data: event times are business times of the rows. Rows synchronised from the older system get the time of the
--          synchronisation, so the watermarks only order what arrives; no view drops late rows.
-- Source:  Debezium 3 PostgreSQL connector, one topic per table, `<prefix>.public.<table>` with any prefix.
--
-- Only columns somebody is likely to ask for are declared: an undeclared column costs nothing, and one added to the
-- ERP changes nothing here. Everything but the key may be NULL, whatever the ERP's schema says of it: captures hold
-- rows from before a column existed. Personal data beyond names and places is left out on purpose.

-- Product categories, a tree.
CREATE TABLE products_productcategory (
  id          BIGINT NOT NULL,
  code        STRING,
  name        STRING,
  parent_id   BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.products_productcategory',
  'format' = 'debezium-json'
);

-- Product families. Production orders and molds refer to these, sales and stock to variants.
CREATE TABLE products_parentproduct (
  id                BIGINT NOT NULL,
  sku               STRING,
  name              STRING,
  is_active         BOOLEAN,
  is_discontinued   BOOLEAN,
  category_id       BIGINT,
  weight            INT,
  supplier_id       STRING,
  created_at        TIMESTAMP_LTZ(6),
  updated_at        TIMESTAMP_LTZ(6),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.products_parentproduct',
  'format' = 'debezium-json'
);

-- What is sold and stored. A third has no category of its own and takes its family's.
CREATE TABLE products_variantproduct (
  id                   BIGINT NOT NULL,
  sku                  STRING,
  name                 STRING,
  is_active            BOOLEAN,
  is_discontinued      BOOLEAN,
  category_id          BIGINT,
  variant_code         STRING,
  retail_price         DECIMAL(10, 2),
  wholesale_price      DECIMAL(10, 2),
  is_verkaufsartikel   BOOLEAN,
  auslaufdatum         TIMESTAMP_LTZ(6),
  is_new               BOOLEAN,
  is_bestseller        BOOLEAN,
  parent_id            BIGINT,
  created_at           TIMESTAMP_LTZ(6),
  updated_at           TIMESTAMP_LTZ(6),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.products_variantproduct',
  'format' = 'debezium-json'
);

-- Suppliers; their keys are UUIDs.
CREATE TABLE business_supplier (
  id            STRING NOT NULL,
  name          STRING,
  creditor_id   STRING,
  city          STRING,
  country       STRING,
  created_at    TIMESTAMP_LTZ(6),
  updated_at    TIMESTAMP_LTZ(6),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.business_supplier',
  'format' = 'debezium-json'
);

-- Customers. Groups and blocks are those of now.
CREATE TABLE sales_customer (
  id                       BIGINT NOT NULL,
  customer_number          STRING,
  name                     STRING,
  customer_group           STRING,
  delivery_block           BOOLEAN,
  price_group              STRING,
  credit_limit             DECIMAL(10, 2),
  discount_percentage      DECIMAL(5, 2),
  payment_terms_net_days   INT,
  created_at               TIMESTAMP_LTZ(6),
  modified_at              TIMESTAMP_LTZ(6),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.sales_customer',
  'format' = 'debezium-json'
);

-- Addresses of customers.
CREATE TABLE sales_address (
  id             BIGINT NOT NULL,
  customer_id    BIGINT,
  is_primary     BOOLEAN,
  company_name   STRING,
  last_name      STRING,
  country        STRING,
  postal_code    STRING,
  city           STRING,
  created_at     TIMESTAMP_LTZ(6),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.sales_address',
  'format' = 'debezium-json'
);

-- Payment terms.
CREATE TABLE sales_paymentterms (
  id                 BIGINT NOT NULL,
  name               STRING,
  days_due           INT,
  discount_days      INT,
  discount_percent   DECIMAL(5, 2),
  active             BOOLEAN,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.sales_paymentterms',
  'format' = 'debezium-json'
);

-- Payment methods.
CREATE TABLE sales_paymentmethod (
  id       BIGINT NOT NULL,
  name     STRING,
  code     STRING,
  active   BOOLEAN,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.sales_paymentmethod',
  'format' = 'debezium-json'
);

-- Shipping methods.
CREATE TABLE sales_shippingmethod (
  id             BIGINT NOT NULL,
  name           STRING,
  code           STRING,
  default_cost   DECIMAL(10, 2),
  active         BOOLEAN,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.sales_shippingmethod',
  'format' = 'debezium-json'
);

-- All sales documents: quotes, orders, delivery notes, invoices, credit notes (record_type).
CREATE TABLE sales_salesrecord (
  id                     BIGINT NOT NULL,
  record_number          STRING,
  record_date            DATE,
  record_type            STRING,
  customer_id            BIGINT,
  subtotal               DECIMAL(12, 2),
  tax_amount             DECIMAL(12, 2),
  shipping_cost          DECIMAL(10, 2),
  handling_fee           DECIMAL(10, 2),
  total_amount           DECIMAL(12, 2),
  currency               STRING,
  payment_status         STRING,
  payment_date           DATE,
  amount_paid_external   DECIMAL(12, 2),
  delivery_status        STRING,
  payment_terms_id       BIGINT,
  payment_method_id      BIGINT,
  shipping_method_id     BIGINT,
  shipping_address_id    BIGINT,
  billing_address_id     BIGINT,
  created_at             TIMESTAMP_LTZ(6),
  modified_at            TIMESTAMP_LTZ(6),
  PRIMARY KEY (id) NOT ENFORCED,
  WATERMARK FOR created_at AS created_at - INTERVAL '1' HOUR
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.sales_salesrecord',
  'format' = 'debezium-json'
);

-- Lines of sales documents. PRODUCT lines carry goods; the rest is text, services, fees.
CREATE TABLE sales_salesrecorditem (
  id                    BIGINT NOT NULL,
  sales_record_id       BIGINT,
  `position`            INT,
  item_type             STRING,
  product_id            BIGINT,
  quantity              DECIMAL(10, 2),
  unit_price            DECIMAL(12, 2),
  discount_percentage   DECIMAL(5, 2),
  tax_rate              DECIMAL(5, 2),
  line_subtotal         DECIMAL(12, 2),
  line_total            DECIMAL(12, 2),
  fulfillment_status    STRING,
  fulfilled_quantity    DECIMAL(10, 2),
  created_at            TIMESTAMP_LTZ(6),
  PRIMARY KEY (id) NOT ENFORCED,
  WATERMARK FOR created_at AS created_at - INTERVAL '1' HOUR
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.sales_salesrecorditem',
  'format' = 'debezium-json'
);

-- Which document came from which.
CREATE TABLE sales_salesrecordrelationship (
  id                  BIGINT NOT NULL,
  relationship_type   STRING,
  from_record_id      BIGINT,
  to_record_id        BIGINT,
  created_at          TIMESTAMP_LTZ(6),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.sales_salesrecordrelationship',
  'format' = 'debezium-json'
);

-- Places that boxes and stock records belong to.
CREATE TABLE inventory_storagelocation (
  id              BIGINT NOT NULL,
  country         STRING,
  city_building   STRING,
  unit            STRING,
  compartment     STRING,
  shelf           STRING,
  location_code   STRING,
  name            STRING,
  sale            BOOLEAN,
  special_spot    BOOLEAN,
  is_active       BOOLEAN,
  capacity        INT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.inventory_storagelocation',
  'format' = 'debezium-json'
);

-- Kinds of boxes.
CREATE TABLE inventory_boxtype (
  id             BIGINT NOT NULL,
  name           STRING,
  color          STRING,
  slot_count     INT,
  weight_empty   DECIMAL(10, 2),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.inventory_boxtype',
  'format' = 'debezium-json'
);

-- Boxes; they move between places.
CREATE TABLE inventory_box (
  id                    BIGINT NOT NULL,
  code                  STRING,
  status                STRING,
  purpose               STRING,
  box_type_id           BIGINT,
  storage_location_id   BIGINT,
  created_at            TIMESTAMP_LTZ(6),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.inventory_box',
  'format' = 'debezium-json'
);

-- Slots of boxes.
CREATE TABLE inventory_boxslot (
  id             BIGINT NOT NULL,
  box_id         BIGINT,
  slot_number    INT,
  slot_code      STRING,
  occupied       BOOLEAN,
  capacity       INT,
  max_products   INT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.inventory_boxslot',
  'format' = 'debezium-json'
);

-- Book stock of a product at a place.
CREATE TABLE inventory_productstorage (
  id                      BIGINT NOT NULL,
  product_id              BIGINT,
  storage_location_id     BIGINT,
  quantity                INT,
  reservation_status      STRING,
  reservation_reference   STRING,
  created_at              TIMESTAMP_LTZ(6),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.inventory_productstorage',
  'format' = 'debezium-json'
);

-- What lies in a slot; the row goes when the slot is emptied.
CREATE TABLE inventory_boxstorage (
  id                   BIGINT NOT NULL,
  box_slot_id          BIGINT,
  product_storage_id   BIGINT,
  quantity             INT,
  batch_number         STRING,
  expiry_date          DATE,
  date_stored          TIMESTAMP_LTZ(6),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.inventory_boxstorage',
  'format' = 'debezium-json'
);

-- Movements. Quantities have no sign: the direction is which slot is set.
CREATE TABLE inventory_inventorymovement (
  id              BIGINT NOT NULL,
  product_id      BIGINT,
  quantity        INT,
  movement_type   STRING,
  reference       STRING,
  from_slot_id    BIGINT,
  to_slot_id      BIGINT,
  `timestamp`     TIMESTAMP_LTZ(6),
  PRIMARY KEY (id) NOT ENFORCED,
  WATERMARK FOR `timestamp` AS `timestamp` - INTERVAL '1' HOUR
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.inventory_inventorymovement',
  'format' = 'debezium-json'
);

-- Molds.
CREATE TABLE production_mold (
  id                 BIGINT NOT NULL,
  legacy_form_nr     STRING,
  description        STRING,
  storage_location   STRING,
  is_active          BOOLEAN,
  created_at         TIMESTAMP_LTZ(6),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.production_mold',
  'format' = 'debezium-json'
);

-- Which product families a mold casts.
CREATE TABLE production_moldproduct (
  id                   BIGINT NOT NULL,
  mold_id              BIGINT,
  parent_product_id    BIGINT,
  products_per_mold    INT,
  weight_per_product   DECIMAL(10, 3),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.production_moldproduct',
  'format' = 'debezium-json'
);

-- Production orders.
CREATE TABLE production_productionorder (
  id              BIGINT NOT NULL,
  order_number    STRING,
  form_number     STRING,
  quantity        INT,
  status          STRING,
  creation_date   TIMESTAMP_LTZ(6),
  planned_date    TIMESTAMP_LTZ(6),
  priority        INT,
  created_at      TIMESTAMP_LTZ(6),
  updated_at      TIMESTAMP_LTZ(6),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.production_productionorder',
  'format' = 'debezium-json'
);

-- Operations of production orders.
CREATE TABLE production_productionorderitem (
  id                       BIGINT NOT NULL,
  production_order_id      BIGINT,
  item_number              INT,
  operation_type           STRING,
  legacy_kostenstelle_id   STRING,
  parent_product_id        BIGINT,
  product_sku              STRING,
  status                   STRING,
  target_quantity          INT,
  completed_quantity       INT,
  remaining_quantity       INT,
  start_date               TIMESTAMP_LTZ(6),
  product_share            DOUBLE,
  estimated_time           INT,
  standard_time            DOUBLE,
  `value`                  DOUBLE,
  created_at               TIMESTAMP_LTZ(6),
  updated_at               TIMESTAMP_LTZ(6),
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.production_productionorderitem',
  'format' = 'debezium-json'
);

-- Currencies.
CREATE TABLE currency_currency (
  id     BIGINT NOT NULL,
  code   STRING,
  name   STRING,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.currency_currency',
  'format' = 'debezium-json'
);

-- Daily exchange rates.
CREATE TABLE currency_exchangerate (
  id                   BIGINT NOT NULL,
  rate                 DECIMAL(20, 4),
  `date`               DATE,
  base_currency_id     BIGINT,
  target_currency_id   BIGINT,
  PRIMARY KEY (id) NOT ENFORCED
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.currency_exchangerate',
  'format' = 'debezium-json'
);

-- Audit trail.
CREATE TABLE core_auditlog (
  id           BIGINT NOT NULL,
  `timestamp`  TIMESTAMP_LTZ(6),
  event_type   STRING,
  message      STRING,
  object_id    STRING,
  PRIMARY KEY (id) NOT ENFORCED,
  WATERMARK FOR `timestamp` AS `timestamp` - INTERVAL '1' HOUR
) WITH (
  'connector' = 'kafka',
  'topic-pattern' = '.+\.public\.core_auditlog',
  'format' = 'debezium-json'
);
