/*---
name: production_order_late
owner: production-planning
severity: warning
key: [production_order_id]
title: "Production order {{ number }}{% if reference %} ({{ reference }}){% endif %} is late: {{ completion_pct|default('0', true)|number }} % done"
impact: remaining
description: A production order is past the time it was planned for and not finished. The impact is the work that remains, in units over all operations.
labels: {domain: production}
---*/
SELECT production_order_id, number, reference, status, due_at, quantity, target, completed, remaining, completion_pct
FROM production_order_status
WHERE late
