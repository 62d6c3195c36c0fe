//! What an analyst reads: how a view is kept, and what is wrong with it.

use expect_test::expect;
use model::SqlFile;
use pipelines::Program;

use crate::world::tables;

fn load(text: &str) -> String {
    let file = SqlFile { path: "v.sql".to_owned(), text: text.to_owned() };
    match Program::load(&tables(), &[file], &[]) {
        Ok(program) => program.views().iter().filter_map(|v| program.explain(&v.name)).collect(),
        Err(all) => all.iter().map(|d| format!("{d}\n")).collect(),
    }
}

#[test]
fn incremental_and_recomputed_parts_are_told_apart() {
    let text = "CREATE VIEW open_order AS SELECT * FROM orders WHERE status = 'open';
        CREATE MATERIALIZED VIEW by_group AS
          SELECT c.grp, sum(o.amount) AS total FROM open_order o JOIN customers c ON c.id = o.customer_id GROUP BY c.grp;
        CREATE MATERIALIZED VIEW top3 AS SELECT grp, total FROM by_group ORDER BY total DESC LIMIT 3;";
    expect![[r#"
        by_group (key: grp; incremental)
        project c.grp, sum(o.amount) AS total
          aggregate sum(o.amount) by c.grp
            columns c.grp, o.amount
              project o.amount, c.grp
                Inner join on o.customer_id = c.id
                  project orders.customer_id, orders.amount
                    filter orders.status = Utf8("open")
                      columns customer_id, amount, status
                        source orders
                  columns id, grp
                    source customers
        top3 (key: grp; incremental)
        first 3 after 0 by by_group.total DESC NULLS FIRST
          view by_group
    "#]]
    .assert_eq(&load(text));
}

#[test]
fn every_operator_has_its_line() {
    let text = "
        CREATE MATERIALIZED VIEW newest AS SELECT id, status FROM (SELECT *, row_number() OVER (PARTITION BY status ORDER BY created_at DESC, id) AS n FROM orders) WHERE n = 1;
        CREATE MATERIALIZED VIEW steps AS SELECT id, lag(amount) OVER (PARTITION BY status ORDER BY id) AS before FROM orders;
        CREATE MATERIALIZED VIEW sets AS SELECT status, day, count(*) AS n FROM orders GROUP BY ROLLUP (status, day);
        CREATE MATERIALIZED VIEW unlike AS SELECT id FROM customers WHERE grp NOT IN (SELECT status FROM orders);
        CREATE MATERIALIZED VIEW known AS SELECT id FROM orders WHERE qty > 9 OR EXISTS (SELECT 1 FROM items WHERE order_id = orders.id);
        CREATE MATERIALIZED VIEW above AS SELECT id, (SELECT max(amount) FROM orders) AS top FROM orders;";
    expect![[r#"
        above (key: id; incremental)
        project orders.id, __value1.__v2 AS top
          Inner join on 
            columns id
              source orders
            project max(orders.amount) AS __v2
              aggregate max(orders.amount) by ()
                columns orders.amount
                  columns amount
                    source orders
        known (key: id; incremental)
        project orders.id
          filter orders.qty > Int32(9) OR __correlated_sq_1.mark
            union all
              mark Boolean(true)
                LeftSemi join on orders.id = __correlated_sq_1.order_id
                  columns id, qty
                    source orders
                  columns order_id
                    source items
              mark Boolean(false)
                LeftAnti join on orders.id = __correlated_sq_1.order_id
                  columns id, qty
                    source orders
                  columns order_id
                    source items
        newest (key: id; incremental)
        project orders.id, orders.status
          project orders.id, orders.status, row_number() PARTITION BY [orders.status] ORDER BY [orders.created_at DESC NULLS FIRST, orders.id ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            first 1 of row_number() PARTITION BY [orders.status] ORDER BY [orders.created_at DESC NULLS FIRST, orders.id ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
              columns id, status, created_at
                source orders
        sets (key: status, day, n; incremental)
        project orders.status, orders.day, count(Int64(1)) AS count(*) AS n
          aggregate count(Int64(1)) by orders.status, orders.day
            3 grouping sets of orders.status, orders.day
              columns orders.status, orders.day, Int64(1)
                columns status, day
                  source orders
        steps (key: id; incremental)
        project orders.id, lag(orders.amount) PARTITION BY [orders.status] ORDER BY [orders.id ASC NULLS LAST] ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW AS before
          columns and windows
            window lag(orders.amount) PARTITION BY [orders.status] ORDER BY [orders.id ASC NULLS LAST] ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
              columns id, amount, status
                source orders
        unlike (key: id; incremental)
        project customers.id
          project customers.id, customers.grp
            filter NOT __right_has_null AND (__right_is_empty OR customers.grp IS NOT NULL)
              Inner join on 
                LeftAnti join on customers.grp = __correlated_sq_1.status
                  columns id, grp
                    source customers
                  columns status
                    source orders
                aggregate () by __right_is_empty, __right_has_null
                  columns __right_is_empty, __right_has_null
                    project n_rows = Int64(0) AS __right_is_empty, n_rows > n_values AS __right_has_null
                      aggregate count(Int64(1)) AS n_rows, count(__correlated_sq_1.status) AS n_values by ()
                        columns Int64(1), __correlated_sq_1.status
                          columns status
                            source orders
    "#]].assert_eq(&load(text));
}

#[test]
fn mistakes_are_named_with_their_place() {
    let text = "CREATE MATERIALIZED VIEW a AS\n  SELECT amout FROM orders;
CREATE MATERIALIZED VIEW b AS SELECT * FROM nowhere;
CREATE MATERIALIZED VIEW c WITH ('key' = 'x') AS SELECT id FROM orders;
CREATE MATERIALIZED VIEW d WITH ('kee' = 'x') AS SELECT id FROM orders;
CREATE MATERIALIZED VIEW e AS SELECT id FORM orders;
CREATE VIEW f AS SELECT * FROM g; CREATE VIEW g AS SELECT * FROM f;
DROP TABLE orders;
CREATE MATERIALIZED VIEW h AS SELECT * FROM TABLE(HOP(TABLE orders, DESCRIPTOR(created_at), INTERVAL '1' HOUR));";
    expect![[r#"
        v.sql:2:10: No field named amout. Did you mean 'orders.amount'?
        Valid fields are orders.id, orders.customer_id, orders.amount, orders.qty, orders.status, orders.created_at, orders.day, orders.weight.
        v.sql:3:45: table 'nowhere' not found
        v.sql:4:1: key column x is not in the result
          help: the columns are id
        v.sql:5:1: unknown option 'kee'
          help: the options are 'key' = 'column, column', 'allowed_lateness' = '10 minutes'
        v.sql:6:46: Expected: end of statement, found: orders
        v.sql:7:1: view f depends on itself
        v.sql:7:35: view g depends on itself
        v.sql:8:1: `DROP TABLE orders` is not a statement of a view file
          help: write CREATE VIEW name AS SELECT … or CREATE MATERIALIZED VIEW name AS SELECT …
        v.sql:9:51: HOP lacks its argument SIZE
          help: write TABLE(HOP(TABLE t, DESCRIPTOR(event_time), INTERVAL '5' MINUTE, INTERVAL '1' HOUR)): slide, size
    "#]].assert_eq(&load(text));
}

#[test]
fn aggregates_that_read_their_whole_group_say_so() {
    let text = "CREATE MATERIALIZED VIEW v AS SELECT status, array_agg(id ORDER BY id) AS ids, stddev(weight) AS s,
                  corr(weight, qty) AS c, bit_or(qty) AS b, approx_distinct(day) AS d FROM orders GROUP BY status;";
    expect![[r#"
        v (key: status; incremental)
        project orders.status, array_agg(orders.id) ORDER BY [orders.id ASC NULLS LAST] AS ids, stddev(orders.weight) AS s, corr(orders.weight,orders.qty) AS c, bit_or(orders.qty) AS b, approx_distinct(orders.day) AS d
          aggregate array_agg(orders.id) ORDER BY [orders.id ASC NULLS LAST], stddev(orders.weight), corr(orders.weight, CAST(orders.qty AS Float64)), bit_or(orders.qty), approx_distinct(orders.day) by orders.status (reads the whole group for array_agg(orders.id) ORDER BY [orders.id ASC NULLS LAST])
            columns orders.status, orders.id, orders.weight, CAST(orders.qty AS Float64), orders.qty, orders.day
              columns id, qty, status, day, weight
                source orders
    "#]]
    .assert_eq(&load(text));
}
