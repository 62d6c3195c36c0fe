/*---
name: customer_order_burst
owner: sales
severity: warning
key: [customer_id]
title: "{{ name|default(number, true)|default(customer_id, true) }} placed {{ orders }} orders within two hours"
impact: net_amount
description: >
  One customer placed ten or more orders within two hours: a mistake, a test, or somebody to call.
labels: {domain: sales}
---*/
SELECT customer_id, number, name, orders, net_amount, first_order_at, last_order_at
FROM customer_orders_2h
WHERE orders >= 10
