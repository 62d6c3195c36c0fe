-- Purpose: the events of an online auction (NEXMark), as the benchmark writes them.
-- Grain:   one row per event; event_type says which: 0 a person, 1 an auction, 2 a bid. Columns of other kinds are NULL.
-- Units:   prices in cents.
-- Late data: none; the generator's events come in order.
-- Source:  the crate nexmark, one JSON object per event, flat, in the topic nexmark.
CREATE TABLE nexmark (
  event_type      INT,
  id              BIGINT,
  name            STRING,
  email_address   STRING,
  credit_card     STRING,
  city            STRING,
  state           STRING,
  item_name       STRING,
  description     STRING,
  initial_bid     BIGINT,
  reserve         BIGINT,
  expires         TIMESTAMP(3),
  seller          BIGINT,
  category        BIGINT,
  auction         BIGINT,
  bidder          BIGINT,
  price           BIGINT,
  channel         STRING,
  url             STRING,
  date_time       TIMESTAMP(3),
  extra           STRING,
  WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND
) WITH (
  'connector' = 'kafka',
  'topic' = 'nexmark',
  'format' = 'json'
);

-- Sellers and bidders.
CREATE VIEW person AS
SELECT id, name, email_address, credit_card, city, state, date_time, extra
FROM nexmark
WHERE event_type = 0;

-- Things for sale.
CREATE VIEW auction AS
SELECT id, item_name, description, initial_bid, reserve, date_time, expires, seller, category, extra
FROM nexmark
WHERE event_type = 1;

-- Offers for them.
CREATE VIEW bid AS
SELECT auction, bidder, price, channel, url, date_time, extra
FROM nexmark
WHERE event_type = 2;
