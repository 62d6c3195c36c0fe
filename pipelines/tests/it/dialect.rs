//! What of Flink's SQL is understood, and what is said about the rest.

use std::path::Path;

use expect_test::{Expect, expect};
use model::SqlFile;
use pipelines::Program;

use crate::world::tables;

/// Loads a file and gives its mistakes, or the schemas of its views.
#[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
fn check(text: &str, expected: Expect) {
    let file = SqlFile { path: "v.sql".to_owned(), text: text.to_owned() };
    let out: String = match Program::load(&tables(), &[file], &[]) {
        Ok(program) => program
            .views()
            .iter()
            .map(|v| {
                let columns: Vec<String> = v.columns.iter().map(|c| format!("{} {}", c.name, c.data_type)).collect();
                format!("{}: {} [{}]\n", v.name, columns.join(", "), v.maintenance)
            })
            .collect(),
        Err(all) => all.iter().map(|d| format!("{d}\n")).collect(),
    };
    expected.assert_eq(&out);
}

#[test]
fn window_functions_in_all_their_forms() {
    check(
        "CREATE MATERIALIZED VIEW a AS SELECT id, window_start, window_end, window_time
           FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(created_at), INTERVAL '10' MINUTES));
         CREATE MATERIALIZED VIEW b AS SELECT w.id, w.window_end
           FROM HOP(TABLE orders, DESCRIPTOR(created_at), INTERVAL '5' MINUTE, INTERVAL '1' HOUR) w;
         CREATE MATERIALIZED VIEW c AS SELECT id, window_end
           FROM TABLE(CUMULATE(DATA => TABLE orders, TIMECOL => DESCRIPTOR(created_at),
                               STEP => INTERVAL '1' HOUR, SIZE => INTERVAL '1' DAY));
         CREATE MATERIALIZED VIEW d AS SELECT id, window_end
           FROM SESSION(DATA => TABLE orders PARTITION BY (customer_id, status), TIMECOL => DESCRIPTOR(created_at),
                        GAP => INTERVAL '5' MINUTE);
         CREATE VIEW open_order AS SELECT * FROM orders WHERE status = 'open';
         CREATE MATERIALIZED VIEW e AS SELECT id, window_end
           FROM TABLE(SESSION(TABLE open_order PARTITION BY customer_id, status, DESCRIPTOR(created_at), INTERVAL '5' MINUTE));",
        expect![[r#"
            a: id Int64, window_start Timestamp(µs, "UTC"), window_end Timestamp(µs, "UTC"), window_time Timestamp(µs, "UTC") [incremental]
            b: id Int64, window_end Timestamp(µs, "UTC") [incremental]
            c: id Int64, window_end Timestamp(µs, "UTC") [incremental]
            d: id Int64, window_end Timestamp(µs, "UTC") [incremental]
            e: id Int64, window_end Timestamp(µs, "UTC") [incremental]
        "#]],
    );
}

#[test]
fn mistakes_in_window_functions() {
    check(
        "CREATE MATERIALIZED VIEW a AS SELECT * FROM TABLE(HOP(TABLE orders, DESCRIPTOR(created_at), INTERVAL '1' HOUR));
CREATE MATERIALIZED VIEW b AS SELECT * FROM TABLE(TUMBLE(TABLE orders, created_at, INTERVAL '1' HOUR));
CREATE MATERIALIZED VIEW c AS SELECT * FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(created_at), INTERVAL '1' MONTH));
CREATE MATERIALIZED VIEW d AS SELECT * FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(created_at), 3600));
CREATE MATERIALIZED VIEW e AS SELECT * FROM TABLE(CUMULATE(TABLE orders, DESCRIPTOR(created_at), INTERVAL '7' HOUR, INTERVAL '1' DAY));
CREATE MATERIALIZED VIEW f AS SELECT * FROM TABLE(TUMBLE(DATA => TABLE orders, TIMECOL => DESCRIPTOR(created_at), SIZ => INTERVAL '1' HOUR));
CREATE MATERIALIZED VIEW g AS SELECT * FROM TABLE(HOP(TABLE orders, DESCRIPTOR(status), INTERVAL '1' HOUR, INTERVAL '1' DAY));
CREATE MATERIALIZED VIEW h AS SELECT * FROM TABLE(TUMBLE(TABLE nowhere, DESCRIPTOR(created_at), INTERVAL '1' HOUR));
CREATE MATERIALIZED VIEW i AS SELECT * FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(nothing), INTERVAL '1' HOUR));
CREATE MATERIALIZED VIEW j AS SELECT TUMBLE_START(created_at, INTERVAL '1' HOUR) AS s FROM orders;
CREATE MATERIALIZED VIEW k AS SELECT * FROM TABLE(HOP(TABLE orders, DESCRIPTOR(created_at), INTERVAL '1' SECOND, INTERVAL '30' DAY));
CREATE MATERIALIZED VIEW l AS SELECT * FROM TABLE(bucket(TABLE orders));",
        expect![[r#"
            v.sql:1:51: HOP lacks its argument SIZE
              help: write TABLE(HOP(TABLE t, DESCRIPTOR(event_time), INTERVAL '5' MINUTE, INTERVAL '1' HOUR)): slide, size
            v.sql:2:72: TUMBLE wants DESCRIPTOR(column) as its second argument
              help: write TABLE(TUMBLE(TABLE t, DESCRIPTOR(event_time), INTERVAL '1' HOUR))
            v.sql:3:105: TUMBLE argument SIZE '1 month' has no fixed length; use days
              help: write TABLE(TUMBLE(TABLE t, DESCRIPTOR(event_time), INTERVAL '1' HOUR))
            v.sql:4:96: TUMBLE argument SIZE must be an interval like INTERVAL '1' HOUR
              help: write TABLE(TUMBLE(TABLE t, DESCRIPTOR(event_time), INTERVAL '1' HOUR))
            v.sql:5:51: CUMULATE wants a size that is a multiple of its step
              help: write TABLE(CUMULATE(TABLE t, DESCRIPTOR(event_time), INTERVAL '1' HOUR, INTERVAL '1' DAY)): step, size
            v.sql:6:115: TUMBLE has no argument SIZ; they are DATA, TIMECOL, SIZE, OFFSET
              help: write TABLE(TUMBLE(TABLE t, DESCRIPTOR(event_time), INTERVAL '1' HOUR))
            v.sql:7:80: the time column of a window is of type Utf8; it must be a timestamp
            v.sql:8:64: table 'nowhere' not found
            v.sql:9:83: No field named nothing.
            Valid fields are orders.id, orders.customer_id, orders.amount, orders.qty, orders.status, orders.created_at, orders.day, orders.weight.
            v.sql:10:38: TUMBLE_START in an expression is Flink's old form of windows
              help: write FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end
            v.sql:11:51: HOP puts each row into more than 10000 windows
              help: write TABLE(HOP(TABLE t, DESCRIPTOR(event_time), INTERVAL '5' MINUTE, INTERVAL '1' HOUR)): slide, size
            v.sql:12:51: bucket is not a table function that is known here
              help: the table functions are TUMBLE, HOP, CUMULATE and SESSION
        "#]],
    );
}

#[test]
fn options_and_emit() {
    check(
        "CREATE MATERIALIZED VIEW a WITH ('key' = 'id', 'allowed_lateness' = '10 minutes') AS
           SELECT id FROM orders;
         CREATE MATERIALIZED VIEW aa AS SELECT window_end, COUNT(*) AS n
           FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(created_at), INTERVAL '1' HOUR)) GROUP BY window_end
         EMIT ON WINDOW CLOSE;",
        expect![[r#"
            v.sql:3:10: EMIT ON WINDOW CLOSE: no column of the result says when a window closes
              help: group by window_end, or by another column that is made of the event time
        "#]],
    );
    check(
        "CREATE MATERIALIZED VIEW b WITH ('lateness' = '10 minutes') AS SELECT id FROM orders;
CREATE MATERIALIZED VIEW c WITH ('allowed_lateness' = 'soon') AS SELECT id FROM orders;
CREATE MATERIALIZED VIEW d WITH ('allowed_lateness' = '1 month') AS SELECT id FROM orders;
CREATE MATERIALIZED VIEW e AS SELECT id FROM orders EMIT CHANGES;
CREATE MATERIALIZED VIEW f AS SELECT id FROM orders EMIT ON WINDOW CLOSE LIMIT 3;
CREATE VIEW g AS SELECT id FROM orders EMIT ON WINDOW CLOSE;
CREATE MATERIALIZED VIEW h WITH ('key' = 'id', 'key' = 'id') AS SELECT id FROM orders;
CREATE MATERIALIZED VIEW i (x) AS SELECT id FROM orders;
CREATE MATERIALIZED VIEW erp.j AS SELECT id FROM orders;
CREATE MATERIALIZED VIEW k AS SELECT id FROM;
CREATE MATERIALIZED VIEW l WITH ('retention' = '90 days') AS SELECT id FROM orders;
CREATE MATERIALIZED VIEW m WITH ('state_ttl' = '30 days') AS SELECT id FROM orders;",
        expect![[r#"
            v.sql:1:1: unknown option 'lateness'
              help: the options are 'key' = 'column, column', 'allowed_lateness' = '10 minutes'
            v.sql:2:55: 'soon' is no duration like '10 minutes'
              help: write 'allowed_lateness' = '10 minutes'
            v.sql:3:55: '1 month' has no fixed length; use days
              help: write 'allowed_lateness' = '10 minutes'
            v.sql:4:53: this EMIT clause is not understood
              help: write EMIT ON WINDOW CLOSE after the SELECT, or leave it out: then results are updated as they change
            v.sql:5:74: expected the end of the statement, found: LIMIT
              help: write EMIT ON WINDOW CLOSE after the SELECT, or leave it out: then results are updated as they change
            v.sql:6:40: a view that is not kept has no options
              help: write CREATE MATERIALIZED VIEW, or remove WITH (…) and EMIT ON WINDOW CLOSE
            v.sql:7:1: option 'key' is given twice
              help: keep one
            v.sql:8:29: a column list after the view's name is not supported
              help: name the columns in the SELECT with AS
            v.sql:9:26: a dot in the view's name
              help: write the view's name alone; there are no catalogs or databases here
            v.sql:10:45: Expected: identifier, found: EOF
            v.sql:11:1: option 'retention' is not supported
              help: the options are 'key' = 'column, column', 'allowed_lateness' = '10 minutes'
            v.sql:12:1: option 'state_ttl' is not supported
              help: the options are 'key' = 'column, column', 'allowed_lateness' = '10 minutes'
        "#]],
    );
}

#[test]
fn flink_spellings() {
    check(
        "CREATE MATERIALIZED VIEW a AS SELECT
           FLOOR(created_at TO HOUR) AS f, CEIL(created_at TO MONTH) AS c, FLOOR(day TO YEAR) AS fy, FLOOR(weight) AS fw,
           TIMESTAMPDIFF(MINUTE, created_at, CURRENT_TIMESTAMP) AS diff, TIMESTAMPADD(DAY, 3, day) AS added,
           TIMESTAMPADD(HOUR, 3, created_at) AS added_h, EXTRACT(HOUR FROM created_at) AS h, HOUR(created_at) AS h2,
           DAYOFWEEK(day) AS dow, DATE_FORMAT(created_at, 'yyyy-MM-dd') AS text, TO_TIMESTAMP('2024-01-01 00:00:00') AS ts,
           TO_DATE(status, 'yyyyMMdd') AS d, UNIX_TIMESTAMP() AS now_s, FROM_UNIXTIME(id) AS t,
           IF(qty > 3, 'many', 'few') AS much, IFNULL(status, '?') AS s, SPLIT_INDEX(status, '-', 0) AS part,
           REGEXP_EXTRACT(status, '(a)(b)', 2) AS re, CHAR_LENGTH(status) AS n, CONCAT_WS('-', status, status) AS ws,
           LPAD(status, 5, '*') AS lp, TRY_CAST(status AS INT) AS tc, id IS NOT DISTINCT FROM qty AS same,
           qty BETWEEN SYMMETRIC 5 AND 1 AS sym, qty NOT BETWEEN ASYMMETRIC 1 AND 5 AS asym, id::VARCHAR AS v,
           LOCALTIMESTAMP AS lt, POSITION('a' IN status) AS pos, TRIM(LEADING '0' FROM status) AS tr,
           SUBSTRING(status FROM 2 FOR 3) AS sub, DATE '2024-01-01' AS dd, MOD(qty, 2) AS m, LOCATE('x', status) AS loc
         FROM orders;
         CREATE MATERIALIZED VIEW b AS SELECT status, LISTAGG(id) AS ids, LISTAGG(DISTINCT status, ';') AS st,
           APPROX_COUNT_DISTINCT(customer_id) AS acd, COUNT(*) FILTER (WHERE qty > 3) AS n3, COLLECT(id) AS col,
           STDDEV_POP(qty) AS sp, VAR_SAMP(qty) AS vs
         FROM orders GROUP BY status;
         CREATE MATERIALIZED VIEW c AS SELECT JSON_VALUE(status, '$.a.b[0]') AS v,
           JSON_VALUE(status, '$.n' RETURNING INT) AS i, JSON_VALUE(status, '$.n' RETURNING DECIMAL(10, 2) DEFAULT 0 ON EMPTY) AS dec,
           JSON_QUERY(status, '$.l' WITH CONDITIONAL ARRAY WRAPPER) AS q, JSON_EXISTS(status, '$.x' FALSE ON ERROR) AS e
         FROM orders;",
        expect![[r#"
            a: f Timestamp(µs, "UTC"), c Timestamp(µs, "UTC"), fy Date32, fw Float64, diff Int64, added Date32, added_h Timestamp(µs, "UTC"), h Int32, h2 Int64, dow Int64, text Utf8, ts Timestamp(µs), d Date32, now_s Int64, t Utf8, much Utf8, s Utf8, part Utf8, re Utf8, n Int32, ws Utf8, lp Utf8, tc Int32, same Boolean, sym Boolean, asym Boolean, v Utf8, lt Timestamp(ns), pos Int32, tr Utf8, sub Utf8, dd Date32, m Int64, loc Int32 [incremental]
            b: status Utf8, ids LargeUtf8, st LargeUtf8, acd UInt64, n3 Int64, col List(Int64), sp Float64, vs Float64 [incremental]
            c: v Utf8, i Int32, dec Decimal128(10, 2), q Utf8, e Boolean [incremental]
        "#]],
    );
}

#[test]
fn what_is_refused_says_what_to_write() {
    check(
        "CREATE MATERIALIZED VIEW a AS SELECT id, RAND() AS r FROM orders;
CREATE MATERIALIZED VIEW b AS SELECT id, PROCTIME() AS p FROM orders;
CREATE MATERIALIZED VIEW c AS SELECT TIMESTAMPDIFF(FORTNIGHT, created_at, created_at) AS x FROM orders;
CREATE MATERIALIZED VIEW d AS SELECT JSON_VALUE(status, '$.a' RETURNING INT NULL ON MONDAY) AS x FROM orders;
CREATE MATERIALIZED VIEW e AS SELECT o.id FROM orders AS o JOIN customers FOR SYSTEM_TIME AS OF o.created_at + INTERVAL '1' DAY AS c ON c.id = o.id;
CREATE MATERIALIZED VIEW f AS SELECT
  nosuch(id) AS x FROM orders;
CREATE MATERIALIZED VIEW g AS SELECT id + created_at AS x FROM orders;
CREATE MATERIALIZED VIEW h AS SELECT o.id FROM orders o, customers c WHERE o.id = c.id AND id > 3;
CREATE MATERIALIZED VIEW i AS SELECT status, count(*) AS n, qty FROM orders GROUP BY status;
CREATE MATERIALIZED VIEW j AS SELECT id FROM orders UNION SELECT id, name FROM customers;
CREATE MATERIALIZED VIEW k AS SELECT x.id FROM orders o;
CREATE MATERIALIZED VIEW l AS SELECT id, id FROM orders;
CREATE MATERIALIZED VIEW m AS SELECT sum(status) AS s FROM orders;
CREATE MATERIALIZED VIEW n AS SELECT * FROM orders WHERE status;
CREATE MATERIALIZED VIEW o AS SELECT CAST(id AS SERIAL) AS s FROM orders;
CREATE MATERIALIZED VIEW p AS SELECT id FROM orders WHERE count(*) > 3;",
        expect![[r#"
            v.sql:1:42: RAND gives another value each time, so a row could not be taken back
              help: derive the value from the row's columns, for example with md5(…)
            v.sql:2:42: there is no processing time here: every result follows from the data
              help: write CURRENT_TIMESTAMP for the time now, or declare an event time with WATERMARK FOR
            v.sql:3:52: FORTNIGHT is not a time unit that is supported here
              help: the units are SECOND, MINUTE, HOUR, DAY, WEEK, MONTH, QUARTER, YEAR
            v.sql:4:85: expected EMPTY or ERROR after ON
            v.sql:5:97: FOR SYSTEM_TIME AS OF wants a time column of the other side
              help: write JOIN t FOR SYSTEM_TIME AS OF x.event_time AS t ON …
            v.sql:7:3: Invalid function 'nosuch'.
            Did you mean 'cosh'?
            v.sql:8:38: Cannot coerce arithmetic expression Int64 + Timestamp(µs, "UTC") to valid types
              help: CAST one side to the type of the other
            v.sql:10:61: Column in SELECT must be in GROUP BY or an aggregate function: While expanding wildcard, column "orders.qty" must appear in the GROUP BY clause or must be part of an aggregate function, currently only "orders.status, count(Int64(1))" appears in the SELECT clause satisfies this requirement
              help: add the column to GROUP BY, or aggregate it
            v.sql:11:31: UNION queries have different number of columns
            v.sql:12:38: No field named x.id. Did you mean 'o.id'?
            Valid fields are o.id, o.customer_id, o.amount, o.qty, o.status, o.created_at, o.day, o.weight.
            v.sql:13:38: Projections require unique expression names but the expression "orders.id" at position 0 and "orders.id" at position 1 have the same name. Consider aliasing ("AS") one of them.
            v.sql:14:38: there is no function sum(Utf8)
            v.sql:15:58: Cannot create filter with non-boolean predicate 'orders.status' returning Utf8
            v.sql:16:49: not supported: Unsupported SQL type SERIAL
            v.sql:17:1: Aggregate functions are not allowed in the WHERE clause. Consider using HAVING instead
        "#]],
    );
}

#[test]
fn warnings_about_what_flink_would_not_run() {
    let warnings = |text: &str| -> String {
        let file = SqlFile { path: "v.sql".to_owned(), text: text.to_owned() };
        let program = Program::load(&tables(), &[file], &[]).unwrap_or_else(|all| panic!("{all:?}"));
        program.warnings().iter().map(|d| format!("{d}\n")).collect()
    };
    expect![[r#"
        v.sql:1:50: AVG of whole numbers is a whole number on Flink
          help: write AVG(CAST(x AS DECIMAL(18, 4))) or AVG(CAST(x AS DOUBLE))
        v.sql:1:65: SUM of this type can overflow on Flink, where it is no BIGINT
          help: write SUM(CAST(x AS BIGINT))
        v.sql:1:134: Flink has no GROUP BY with a column's number
          help: write the column's name
        v.sql:2:38: Flink has no ::
          help: write CAST(… AS VARCHAR)
        v.sql:2:56: Flink quotes names with backticks, not as "status"
          help: write `name`
        v.sql:2:125: Flink wants an interval's unit outside the quotes
          help: write INTERVAL '1' DAY
        v.sql:3:62: Flink puts NULL first in ascending order and last in descending order, Andon the other way round
          help: write NULLS FIRST or NULLS LAST
        v.sql:4:42: Flink has OVER aggregates only on inputs that never change, in the order of event time
          help: aggregate with GROUP BY and join, if the query must run there
        v.sql:5:38: Flink has no function DATE_TRUNC
          help: write FLOOR(ts TO HOUR)
        v.sql:5:74: CONCAT with a NULL is NULL on Flink; here the NULL is left out
          help: write a || b, which is NULL on both, or CONCAT_WS('', a, b)
        v.sql:5:100: LOG is the natural logarithm on Flink, base 10 here
          help: write LN(x) or LOG10(x)
        v.sql:6:38: Flink has no AT TIME ZONE
          help: write CONVERT_TZ(text, 'UTC', 'Europe/Berlin') on Flink, or compute the offset in a view
        v.sql:6:101: Flink has no ILIKE
          help: write LOWER(x) LIKE 'pattern'
        v.sql:7:29: AVG of whole numbers is a whole number on Flink
          help: write AVG(CAST(x AS DECIMAL(18, 4))) or AVG(CAST(x AS DOUBLE))
    "#]].assert_eq(&warnings(
        "CREATE MATERIALIZED VIEW a AS SELECT status, AVG(qty) AS q, SUM(qty) AS s, SUM(id) AS fine, AVG(amount) AS good FROM orders GROUP BY 1;
CREATE MATERIALIZED VIEW b AS SELECT id::VARCHAR AS v, \"status\" FROM orders WHERE created_at > CURRENT_TIMESTAMP - INTERVAL '1 day';
CREATE MATERIALIZED VIEW c AS SELECT id FROM orders ORDER BY amount DESC LIMIT 3;
CREATE MATERIALIZED VIEW d AS SELECT id, LAG(qty) OVER (PARTITION BY status ORDER BY id NULLS LAST) AS l FROM orders;
CREATE MATERIALIZED VIEW e AS SELECT date_trunc('day', created_at) AS d, CONCAT(status, 'x') AS c, LOG(weight) AS l FROM orders;
CREATE MATERIALIZED VIEW f AS SELECT created_at AT TIME ZONE 'Europe/Berlin' AS t FROM orders WHERE status ILIKE 'o%';
CREATE VIEW g AS SELECT AVG(qty) AS q FROM orders;
CREATE MATERIALIZED VIEW h AS SELECT q FROM g;
-- NOT PORTABLE: shown as the office sees it.
CREATE MATERIALIZED VIEW i AS SELECT id::VARCHAR AS v FROM orders;",
    ));
}

/// All SQL files below a folder of the repository.
fn files(folder: &str) -> Vec<SqlFile> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "sql") {
                let text = std::fs::read_to_string(&path).expect("readable");
                files.push(SqlFile { path: path.display().to_string(), text });
            }
        }
    }
    files
}

#[test]
fn shipped_files_run_on_flink_unless_they_say_otherwise() {
    for pack in ["pyerp", "tryton"] {
        let source = files(&format!("ingest/sources/{pack}"));
        let tables = ingest::ddl::parse_tables(&source).unwrap_or_else(|all| panic!("{all:?}"));
        let all: Vec<SqlFile> = source.into_iter().chain(files("pipelines/sql")).collect();
        let program = Program::load(&tables, &all, &[]).unwrap_or_else(|all| panic!("{all:?}"));
        let warnings: String = program.warnings().iter().map(|d| format!("{d}\n")).collect();
        assert!(warnings.is_empty(), "{warnings}");
    }
}

#[test]
fn joins_as_of_a_time() {
    check(
        "CREATE MATERIALIZED VIEW a AS SELECT o.id, c.name FROM orders AS o
           JOIN customers FOR SYSTEM_TIME AS OF o.created_at AS c ON c.id = o.customer_id;",
        expect![[r#"
            v.sql:2:49: customers has no event time, so its versions have no order
              help: declare WATERMARK FOR a column of the source table, or join as of PROCTIME()
        "#]],
    );
}

#[test]
fn lookup_joins_follow_the_row_as_it_is_now() {
    check(
        "CREATE MATERIALIZED VIEW a AS SELECT o.id, c.name FROM orders AS o
           LEFT JOIN customers FOR SYSTEM_TIME AS OF PROCTIME() AS c ON c.id = o.customer_id;
         CREATE MATERIALIZED VIEW b AS SELECT o.id, d.name FROM orders o
           JOIN customers FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP d ON d.id = o.customer_id;",
        expect![[r#"
            a: id Int64, name Utf8 [incremental]
            b: id Int64, name Utf8 [incremental]
        "#]],
    );
}

#[test]
fn views_in_any_order_and_case() {
    check(
        "CREATE MATERIALIZED VIEW Last_One AS SELECT * FROM MIDDLE;
         CREATE VIEW middle AS SELECT ID, \"Big Name\" FROM first_one WHERE id > 1;
         CREATE MATERIALIZED VIEW FIRST_ONE AS SELECT id, name AS \"Big Name\" FROM Customers;",
        expect![[r#"
            first_one: id Int64, Big Name Utf8 [incremental]
            last_one: id Int64, Big Name Utf8 [incremental]
        "#]],
    );
    check(
        "CREATE MATERIALIZED VIEW customers AS SELECT 1 AS x;
CREATE MATERIALIZED VIEW a AS SELECT 1 AS x;
CREATE VIEW A AS SELECT 2 AS x;
CREATE VIEW c AS WITH c AS (SELECT id FROM orders) SELECT * FROM c;
CREATE VIEW cc AS WITH cc AS (SELECT id FROM cc) SELECT * FROM cc;
CREATE MATERIALIZED VIEW d AS SELECT * FROM d;
CREATE VIEW a__late AS SELECT 1 AS x;
CREATE VIEW c__late AS SELECT 1 AS x;",
        expect![[r#"
            v.sql:1:1: customers is also a source table
              help: give the view another name
            v.sql:3:1: view a is defined twice
              help: the first is in v.sql:2
            v.sql:5:1: view cc depends on itself
            v.sql:6:1: view d depends on itself
            v.sql:7:1: a__late is the name of the late rows of view a
              help: give the view another name
        "#]],
    );
}

#[test]
fn standard_sql_that_is_refused_says_what_to_write() {
    check(
        "CREATE MATERIALIZED VIEW a AS SELECT id, SUM(qty) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW) AS s FROM orders;
CREATE MATERIALIZED VIEW b AS SELECT id, SUM(qty) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE TIES) AS s FROM orders;
CREATE MATERIALIZED VIEW c AS SELECT o.id, t.tag FROM orders o LEFT JOIN UNNEST(string_to_array(o.status, ',')) AS t (tag) ON t.tag <> 'x';
CREATE MATERIALIZED VIEW d AS SELECT o.id, t.tag FROM orders o RIGHT JOIN UNNEST(string_to_array(o.status, ',')) AS t (tag) ON TRUE;
CREATE MATERIALIZED VIEW e AS SELECT id FROM orders WHERE (id, qty) = (SELECT id, qty FROM orders);
CREATE MATERIALIZED VIEW f AS SELECT id FROM orders WHERE (id, qty) IN ((1, 2), (3, 4, 5));
CREATE MATERIALIZED VIEW g AS SELECT JSON_OBJECT('a' VALUE id, 'b') AS j FROM orders;
CREATE MATERIALIZED VIEW h AS SELECT PERCENTILE_DISC(0.5) AS p FROM orders;
CREATE MATERIALIZED VIEW i AS SELECT id FROM orders o WHERE EXISTS (WITH RECURSIVE t AS (SELECT o.qty AS n UNION ALL SELECT n - 1 FROM t WHERE n > 0) SELECT 1 FROM t WHERE n = 3);
CREATE MATERIALIZED VIEW j AS SELECT o.id, c.name FROM orders o FULL JOIN customers c ON c.id = o.customer_id AND EXISTS (SELECT 1 FROM items i WHERE i.order_id = o.id AND i.sku = c.name);
CREATE MATERIALIZED VIEW k AS SELECT MODE() AS m FROM orders;",
        expect![[r#"
            v.sql:1:110: EXCLUDE CURRENT ROW is not supported
              help: for SUM and COUNT subtract the row's own value; else write a subquery with <> on the key
            v.sql:2:110: EXCLUDE TIES is not supported
              help: write a subquery that leaves out the rows of the same order, (SELECT … WHERE p.x <> t.x)
            v.sql:3:127: LEFT JOIN UNNEST has no condition but TRUE
              help: write FROM t CROSS JOIN UNNEST(t.tags) AS u (tag), or LEFT JOIN … ON TRUE
            v.sql:4:82: UNNEST can only be joined by CROSS JOIN, JOIN … ON and LEFT JOIN … ON TRUE
              help: write FROM t CROSS JOIN UNNEST(t.tags) AS u (tag), or LEFT JOIN … ON TRUE
            v.sql:5:72: a row is compared with a subquery
              help: write (a, b) IN (SELECT x, y …)
            v.sql:6:82: rows of different lengths are compared
              help: compare (a, b) with (c, d)
            v.sql:7:64: a key without a value
              help: write JSON_OBJECT('name' VALUE x, … NULL ON NULL) or JSON_ARRAY(x, … ABSENT ON NULL)
            v.sql:8:38: PERCENTILE_DISC has no order
              help: write PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY x)
            v.sql:9:99: not supported: 'qty', a column of the outer query, inside WITH RECURSIVE of a subquery
              help: read it outside: join the subquery's rows in the outer query and compare them there
            v.sql:10:1: not supported: a subquery in the ON of a full join that reads columns of both sides
              help: compute what the subquery says in a subquery of one side, and compare that
            v.sql:11:38: MODE has no order
              help: write MODE() WITHIN GROUP (ORDER BY x)
        "#]],
    );
}

#[test]
fn json_is_made_taken_apart_and_looked_at() {
    check(
        "CREATE MATERIALIZED VIEW a AS SELECT id, JSON_OBJECT('id' VALUE id, KEY 'total' VALUE amount, 'at': created_at, 'in' VALUE JSON_OBJECT('s', status ABSENT ON NULL)) AS o,
           JSON_ARRAY(id, status, JSON_ARRAY(qty) NULL ON NULL) AS l, status IS JSON AS j, status IS NOT JSON OBJECT AS n, status -> 'a' ->> 0 AS m
         FROM orders WHERE status ->> 'a' = 'x' AND status IS JSON ARRAY;",
        expect![[r#"
            a: id Int64, o Utf8, l Utf8, j Boolean, n Boolean, m Utf8 [incremental]
        "#]],
    );
}
