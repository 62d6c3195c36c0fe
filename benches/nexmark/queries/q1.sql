-- Purpose: NEXMark q1, currency conversion: a projection with arithmetic.
CREATE MATERIALIZED VIEW q1 AS
SELECT auction, bidder, CAST(0.908 * price AS DECIMAL(23, 3)) AS price, date_time, extra
FROM bid;
