-- Purpose: NEXMark q0, pass through: what reading and writing alone cost.
CREATE MATERIALIZED VIEW q0 AS
SELECT auction, bidder, price, date_time, extra
FROM bid;
