-- Purpose: NEXMark q19, top ten: the highest bids of each auction.
CREATE MATERIALIZED VIEW q19 WITH ('key' = 'auction, rank_number') AS
SELECT auction, bidder, price, channel, url, date_time, extra, rank_number
FROM (
  SELECT
    auction, bidder, price, channel, url, date_time, extra,
    ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC NULLS LAST, date_time ASC NULLS FIRST, extra ASC NULLS FIRST) AS rank_number
  FROM bid
) ranked
WHERE rank_number <= 10;
