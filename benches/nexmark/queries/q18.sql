-- Purpose: NEXMark q18, last bid: the newest bid of each bidder on each auction.
CREATE MATERIALIZED VIEW q18 WITH ('key' = 'auction, bidder') AS
SELECT auction, bidder, price, channel, url, date_time, extra
FROM (
  SELECT
    auction, bidder, price, channel, url, date_time, extra,
    ROW_NUMBER() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC NULLS LAST, extra ASC NULLS FIRST) AS rank_number
  FROM bid
) ranked
WHERE rank_number <= 1;
