-- Purpose: NEXMark q2, selection: bids on some auctions.
CREATE MATERIALIZED VIEW q2 AS
SELECT auction, price
FROM bid
WHERE MOD(auction, 123) = 0;
