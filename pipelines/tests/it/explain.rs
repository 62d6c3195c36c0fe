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
          help: known options: 'key' = 'column, column'
        v.sql:6:46: Expected: end of statement, found: orders
        v.sql:7:1: view f depends on itself
        v.sql:7:35: view g depends on itself
        v.sql:8:1: `DROP TABLE orders` is not a statement of a view file
          help: write CREATE VIEW name AS SELECT … or CREATE MATERIALIZED VIEW name AS SELECT …
        v.sql:9:1: the window function HOP is not supported yet
          help: use TUMBLE
    "#]].assert_eq(&load(text));
}
