use super::*;
use crate::fixtures::view_info;
use serde_json::Map;

fn engine(config: &SqlConfig) -> SqlEngine {
    SqlEngine::new(config).expect("threads")
}

fn table(n_rows: usize, condition: Option<&str>) -> QueryTable {
    let info = Arc::new(view_info("v"));
    let filter = condition.map(|c| RowFilter::compile(&info, c, &Map::new()).expect("it fits"));
    let rows = (0..n_rows).map(|n| Bytes::from(format!(r#"{{"id":{n},"n":{}}}"#, n % 10))).collect();
    QueryTable { info, rows, filter }
}

async fn run(config: &SqlConfig, sql: &str, table: QueryTable) -> Result<QueryResult, QueryError> {
    let engine = engine(config);
    let permit = engine.permit("ann")?;
    engine.run(parse(sql)?, vec![table], permit).await
}

fn text(result: Result<QueryResult, QueryError>) -> String {
    match result {
        Ok(result) => {
            let text = arrow::util::pretty::pretty_format_batches(&result.batches).expect("text").to_string();
            let rows = text.lines().filter(|line| line.starts_with('|')).skip(1);
            rows.map(|row| row.replace(['|', ' '], "")).collect::<Vec<_>>().join(",")
        }
        Err(error) => format!("{error:?}"),
    }
}

#[tokio::test]
async fn a_query_sees_only_the_rows_of_its_caller() {
    let config = SqlConfig::default();
    let check = async |sql: &str, condition| text(run(&config, sql, table(100, condition)).await);
    assert_eq!(check("SELECT count(*) FROM v", None).await, "100");
    assert_eq!(check("SELECT count(*) FROM v", Some("n = 3")).await, "10");
    assert_eq!(check("SELECT count(*) FROM v a JOIN v b ON a.id = b.id OR true", Some("id < 2")).await, "4");
    assert_eq!(check("SELECT max(id) FROM (SELECT * FROM v WHERE n <> 3 OR n = 3) x", Some("n = 3")).await, "93");
    assert_eq!(check("WITH v AS (SELECT * FROM v) SELECT count(*) FROM v", Some("n = 3")).await, "10");
    assert_eq!(check("SELECT (SELECT count(*) FROM v)", Some("n = 3")).await, "10");
}

#[test]
fn only_one_select_is_taken() {
    for sql in [
        "",
        "DELETE FROM v",
        "INSERT INTO v VALUES (1, 2)",
        "CREATE TABLE t AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY (SELECT * FROM v) TO '/tmp/out.csv'",
        "EXPLAIN SELECT * FROM v",
        "SHOW TABLES",
        "SET datafusion.execution.batch_size = 1",
        "DROP TABLE v",
        "SELECT 1; SELECT 2",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM public.v",
        "SELECT * FROM '/etc/passwd'.x",
    ] {
        assert!(parse(sql).is_err(), "{sql}");
    }
    assert_eq!(parse("SELECT * FROM '/etc/passwd'").expect("a name like another").views, ["/etc/passwd"]);
}

#[tokio::test]
async fn a_query_that_takes_too_much_is_refused() {
    let config = SqlConfig { memory_bytes: 1 << 20, seconds: 1, rows: 5, scan_bytes: 100_000, ..SqlConfig::default() };
    let result = run(&config, "SELECT id FROM v ORDER BY id", table(100, None)).await.expect("it runs");
    assert!(result.is_cut);
    assert_eq!(text(Ok(result)), "0,1,2,3,4");
    let check = async |sql: &str| run(&config, sql, table(2_000, None)).await.expect_err(sql);
    let endless = "SELECT sum(a.id * b.id * c.id) FROM v a, v b, v c, v d WHERE a.n < 20";
    assert!(matches!(check(endless).await, QueryError::TooSlow(1)));
    for large in [
        "SELECT a.id FROM v a, v b ORDER BY a.n",
        "SELECT sum(a.n) OVER (ORDER BY a.id ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) FROM v a, v b",
        "SELECT sum(a.n) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM v a, v b",
    ] {
        let patient = SqlConfig { seconds: 60, ..config.clone() };
        let outcome = run(&patient, large, table(2_000, None)).await;
        assert!(matches!(outcome, Err(QueryError::TooLarge("memory"))), "{large}: {outcome:?}");
    }
    assert!(matches!(run(&config, "SELECT 1 FROM v", table(10_000, None)).await, Err(QueryError::TooLarge(_))));
    for sql in [
        "SELECT repeat('x', 1000000000)",
        "SELECT lpad('x', 1000000000)",
        "SELECT array_repeat(1, 1000000000)",
        "SELECT * FROM generate_series(1, 1000000000000)",
        "SELECT * FROM range(1000000000000)",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
        "SELECT version()",
        "SELECT array_to_string(make_array(1, 2), 'x')",
        "SELECT levenshtein('x', 'y')",
        "SELECT overlay('x' PLACING 'y' FROM 1)",
        "SELECT regexp_replace('x', '', 'xxxx', 'g')",
        "SELECT string_agg('x', 'y')",
        "SELECT arrow_cast(NULL, 'FixedSizeBinary(1000000000)')",
        "SELECT CAST(NULL AS INT[1000000000])",
        "SELECT (1, 2)",
        "SELECT unnest(make_array(1, 2))",
        "SELECT struct(1, 2)",
        "SELECT named_struct('a', 1)",
    ] {
        let outcome = match parse(sql) {
            Ok(query) => {
                let engine = engine(&config);
                let permit = engine.permit("ann").expect("free");
                engine.run(query, Vec::new(), permit).await
            }
            Err(error) => Err(error),
        };
        assert!(matches!(outcome, Err(QueryError::Query(_))), "{sql}: {outcome:?}");
    }
    let doubled = (0..40).fold("'xxxxxxxxxxxxxxxx'".to_owned(), |text, _| format!("replace({text}, 'x', 'xxxx')"));
    assert!(matches!(check(&format!("SELECT {doubled}")).await, QueryError::Query(_)));
    let ctes: String = (1..40).map(|n| format!(", t{n} AS (SELECT s || s AS s FROM t{})", n - 1)).collect();
    let doubled = format!("WITH t0 AS (SELECT 'x' AS s){ctes} SELECT length(s) FROM t39");
    assert!(matches!(check(&doubled).await, QueryError::TooLarge(_)));
    // The steps double, or what a filter on top becomes, or the columns of a long literal.
    let ctes: String = (1..40).map(|n| format!(", t{n} AS (SELECT 1 AS s FROM t{0}, t{0} x)", n - 1)).collect();
    let doubled = format!("WITH t0 AS (SELECT 1 AS s){ctes} SELECT s FROM t39");
    assert!(matches!(parse(&doubled), Err(QueryError::TooLarge(_))));
    let ctes: String = (1..40).map(|n| format!(", t{n} AS (SELECT s + s AS s FROM t{})", n - 1)).collect();
    let doubled = format!("WITH t0 AS (SELECT id AS s FROM v){ctes} SELECT s FROM t39 WHERE s > 1");
    assert!(matches!(check(&doubled).await, QueryError::TooLarge(_)));
    let columns = (0..300).map(|n| format!("s AS c{n}")).collect::<Vec<_>>().join(", ");
    let wide = format!("SELECT {columns} FROM (SELECT '{}' AS s) x, v", "x".repeat(4_000));
    assert!(matches!(check(&wide).await, QueryError::TooLarge(_)));
    let computed: String = (0..200).map(|n| format!(", '{}' || id AS c{n}", "x".repeat(100))).collect();
    assert!(matches!(check(&format!("SELECT id{computed} FROM v")).await, QueryError::TooLarge(_)));
}

#[tokio::test]
async fn a_chain_of_operators_does_not_use_up_the_stack() {
    let config = SqlConfig { query_bytes: 1 << 20, seconds: 120, ..SqlConfig::default() };
    let chain = |n: usize| format!("SELECT count(*) FROM v WHERE id{} > 0", " + 1".repeat(n));
    assert!(matches!(parse(&chain(30_000)), Err(QueryError::TooLarge(_))));
    assert_eq!(text(run(&config, &chain(400), table(10, None)).await), "10");
    let values = (0..20_000).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let listed = format!("SELECT count(*) FROM v WHERE id IN ({values})");
    assert_eq!(text(run(&config, &listed, table(10, None)).await), "10");
}

#[tokio::test]
async fn what_people_ask_is_not_refused() {
    let config = SqlConfig::default();
    let check = async |sql: &str, expected: &str| assert_eq!(text(run(&config, sql, table(100, None)).await), expected);
    check("SELECT concat_ws('-', 'a', n, id) FROM v WHERE id = 7", "a-7-7").await;
    check("SELECT to_char(to_timestamp_seconds(max(id)), '%Y-%m') FROM v", "1970-01").await;
    check(
        "WITH a AS (SELECT n, sum(id) AS s FROM v GROUP BY n), b AS (SELECT avg(s) AS m FROM a) \
         SELECT count(*) FROM a, b WHERE a.s > b.m AND upper('x' || a.n) LIKE 'X%'",
        "5",
    )
    .await;
    check(
        "SELECT count(*) FROM (SELECT row_number() OVER (PARTITION BY n ORDER BY id) AS r FROM v) x WHERE r = 1",
        "10",
    )
    .await;
    let columns: String = (0..100).map(|n| format!(", 'order ' || id || ' of ' || n AS c{n}")).collect();
    let sql = format!("SELECT count(*) FROM (SELECT id{columns} FROM v) x");
    check(&sql, "100").await;
}

#[tokio::test]
async fn queries_at_a_time_are_bounded_in_all_and_by_user() {
    let engine = engine(&SqlConfig { queries: 3, queries_per_user: 2, ..SqlConfig::default() });
    let first = engine.permit("ann");
    let second = engine.permit("ann");
    assert!(first.is_ok() && second.is_ok());
    assert!(matches!(engine.permit("ann"), Err(QueryError::Busy)));
    let other = engine.permit("bob");
    assert!(other.is_ok());
    assert!(matches!(engine.permit("cid"), Err(QueryError::Busy)));
    drop(first);
    assert!(engine.permit("ann").is_ok());
}

#[tokio::test]
async fn a_dropped_query_ends() {
    let config = SqlConfig { seconds: 60, ..SqlConfig::default() };
    let engine = engine(&config);
    let permit = engine.permit("ann").expect("free");
    let endless = parse("SELECT sum(a.id * b.id * c.id) FROM v a, v b, v c, v d WHERE a.n < 20").expect("a query");
    let running = engine.run(endless, vec![table(2_000, None)], permit);
    assert!(tokio::time::timeout(Duration::from_millis(300), running).await.is_err(), "it runs");
    tokio::time::timeout(Duration::from_secs(20), async {
        while engine.permits.available_permits() < config.queries {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("its place is given back");
}
