-- Purpose: NEXMark q17, auction statistics: many aggregates per auction and day.
CREATE MATERIALIZED VIEW q17 AS
SELECT
  auction,
  DATE_FORMAT(date_time, 'yyyy-MM-dd') AS bid_day,
  COUNT(*) AS total_bids,
  COUNT(*) FILTER (WHERE price < 10000) AS rank1_bids,
  COUNT(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
  COUNT(*) FILTER (WHERE price >= 1000000) AS rank3_bids,
  MIN(price) AS min_price,
  MAX(price) AS max_price,
  CAST(AVG(CAST(price AS DOUBLE)) AS BIGINT) AS avg_price,
  SUM(price) AS sum_price
FROM bid
GROUP BY auction, DATE_FORMAT(date_time, 'yyyy-MM-dd');
