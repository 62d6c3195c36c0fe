/*---
name: stock_below_threshold
owner: purchasing
severity: high
key: [item_id]
title: "{{ sku }} {{ name }}: {% if quantity|float <= 0 %}out of stock{% else %}only {{ quantity|number }} in stock{% endif %}, threshold {{ threshold|number }}"
impact: value_at_risk
description: >
  Stock of an item is below the ERP's minimum or, where the ERP has none, below three days of sales.
  The numbers are in pipelines/sql/alerts/stock_threshold.sql.
labels: {domain: stock}
---*/
SELECT item_id, sku, name, quantity, threshold, open_units, units_sold_28d, value_at_risk
FROM item_stock_threshold
WHERE quantity < threshold
