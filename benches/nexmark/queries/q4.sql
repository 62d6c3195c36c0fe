-- Purpose: NEXMark q4, average price for a category: a join, a maximum and an average over it.
CREATE MATERIALIZED VIEW q4 AS
SELECT q.category, CAST(AVG(CAST(q.final AS DOUBLE)) AS BIGINT) AS avg_final
FROM (
  SELECT a.id, a.category, MAX(b.price) AS final
  FROM auction a, bid b
  WHERE a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires
  GROUP BY a.id, a.category
) q
GROUP BY q.category;
