use super::*;
use model::view::ViewColumn;
use serde_json::json;

use crate::fixtures::view_info;

fn view() -> ViewInfo {
    let column = |name: &str, data_type: &str| ViewColumn {
        name: name.to_owned(),
        data_type: data_type.to_owned(),
        nullable: true,
    };
    ViewInfo {
        columns: vec![
            column("id", "Int64"),
            column("region", "Dictionary(Int32, Utf8)"),
            column("amount", "Decimal128(20, 2)"),
            column("text", "Utf8"),
        ],
        ..view_info("orders")
    }
}

const ROWS: [&[u8]; 4] = [
    br#"{"id":1,"region":"N","amount":"10.00","text":"5"}"#,
    br#"{"id":2,"region":"S","amount":"20.00","text":"x"}"#,
    br#"{"id":3,"region":null,"amount":"30.00","text":"7"}"#,
    br#"{"id":4,"region":"' OR true --","amount":null,"text":"9"}"#,
];

fn filter(condition: &str, claims: Value) -> Result<RowFilter, RowFilterError> {
    let Value::Object(claims) = claims else { panic!("claims are an object") };
    RowFilter::compile(&view(), condition, &claims)
}

#[track_caller]
fn check(condition: &str, claims: Value, expected: &[u64]) {
    let seen = filter(condition, claims).expect("it fits").matches(&ROWS);
    let ids: Vec<u64> = (1..).zip(seen).filter(|(_, seen)| *seen).map(|(id, _)| id).collect();
    assert_eq!(ids, expected, "{condition}");
}

#[test]
fn rows_that_fulfil_the_condition_are_seen() {
    check("region = claims.region", json!({"region": "N"}), &[1]);
    check("region <> claims.region", json!({"region": "N"}), &[2, 4]);
    check("amount >= claims.min AND id < 4", json!({"min": 20}), &[2, 3]);
    check("amount > claims.min", json!({"min": 19.5}), &[2, 3]);
    check("id = claims.user_id", json!({"user_id": 3}), &[3]);
    check("region IN (claims.regions)", json!({"regions": ["N", "S"]}), &[1, 2]);
    check("region IN ('S', claims.org.region)", json!({"org": {"region": "N"}}), &[1, 2]);
    check("true", json!({}), &[1, 2, 3, 4]);
    check("claims.sees_all", json!({"sees_all": true}), &[1, 2, 3, 4]);
}

#[test]
fn a_missing_claim_shows_nothing() {
    for condition in ["region = claims.region", "NOT region = claims.region", "true OR region = claims.region"] {
        for claims in [json!({}), json!({"region": null}), json!({"region": ["N"]}), json!({"region": {"a": 1}})] {
            check(condition, claims, &[]);
        }
    }
    check("region IN (claims.regions)", json!({"regions": []}), &[]);
}

#[test]
fn a_claims_text_is_never_sql() {
    check("region = claims.region", json!({"region": "' OR true --"}), &[4]);
    check("region = claims.region", json!({"region": "N' OR '1'='1"}), &[]);
    check("region = claims.region", json!({"region": "$1"}), &[]);
}

#[test]
fn a_row_that_fails_is_left_out_alone() {
    check("CAST(text AS BIGINT) >= 5", json!({}), &[1, 3, 4]);
}

#[test]
fn a_condition_that_does_not_fit_is_refused() {
    for bad in [
        "",
        "region =",
        "region = 'N'; DROP TABLE x",
        "no_column = 1",
        "amount",
        "id = $1",
        "now() > TIMESTAMP '2025-01-01'",
        "random() < 0.5",
        "EXISTS (SELECT 1)",
        "id IN (SELECT 1)",
        "sum(id) > 1",
        "repeat(text, 1000000000) = 'x'",
    ] {
        assert!(filter(bad, json!({})).is_err(), "{bad}");
    }
    let deep = format!("{}id = 1{}", "(".repeat(200), ")".repeat(200));
    assert!(filter(&deep, json!({})).is_err());
    assert!(filter(&format!("text = '{}'", "x".repeat(CONDITION_BYTES_MAX)), json!({})).is_err());
    // As deep as it is long.
    let chain = format!("id{} > 0", "+1".repeat(4_000));
    assert!(matches!(RowFilter::of_client(&view(), &chain), Err(RowFilterError::TooLong)));
    let chain = format!("id{} > 0", "+1".repeat(900));
    let filter = RowFilter::of_client(&view(), &chain).expect("it fits");
    assert_eq!(filter.matches(&[br#"{"id":1}"#]), [true]);
}

#[test]
fn a_clients_filter_may_use_what_stays_small_and_nothing_else() {
    for good in [
        "id = 1 AND NOT (region IN ('N', 'S') OR amount BETWEEN 1 AND 2)",
        "region LIKE 'N%' OR region NOT ILIKE '%s' OR region IS NULL OR region IS DISTINCT FROM 'x'",
        "(id + 1) * 2 - id / 3 % 4 > -5",
        "CAST(id AS DOUBLE) > 1 AND id::BIGINT > 0",
        "CASE WHEN id = 1 THEN true ELSE false END",
        "upper(coalesce(lower(region), 'none')) = 'N' AND abs(id) > 0",
        "date_trunc('day', CAST(text AS TIMESTAMP)) IS NOT NULL",
    ] {
        RowFilter::of_client(&view(), good).unwrap_or_else(|error| panic!("{good}: {error:?}"));
    }
    for (bad, name) in [
        ("replace(replace(text, 'x', 'xxxx'), 'x', 'xxxx') = ''", "replace"),
        ("length(lower(regexp_replace(text, '', 'xxxx', 'g'))) > 1", "regexp_replace"),
        ("regexp_replace(text, '', 'xxxx', 'g') = ''", "regexp_replace"),
        ("levenshtein(text, text) > 1", "levenshtein"),
        ("overlay(text PLACING 'x' FROM 1) = ''", "overlay"),
        ("text || text = ''", "||"),
        ("concat(text, text) = ''", "concat"),
        ("text ~ '(a+)+'", "~"),
        ("id IN (1, CASE WHEN ascii(text) > 1 THEN 1 END)", "ascii"),
        ("[id][1] = 1", "array_element"),
        ("CAST(NULL AS INT[1000000000]) IS NULL", "CAST AS"),
    ] {
        let error = RowFilter::of_client(&view(), bad).expect_err(bad);
        let RowFilterError::NotAllowed(found) = error else { panic!("{bad}: {error:?}") };
        assert!(found.starts_with(name), "{bad}: {found}");
    }
    assert!(RowFilter::compile(&view(), "replace(text, 'x', 'y') = 'y'", &Map::new()).is_ok(), "an operator's may");
}

#[test]
fn filters_with_the_same_rows_have_the_same_key() {
    let key = |condition: &str, claims| Arc::clone(filter(condition, claims).expect("it fits").key());
    let rule = "region = claims.region";
    assert_eq!(key(rule, json!({"region": "N", "sub": "ann"})), key(rule, json!({"region": "N", "sub": "bob"})));
    assert_ne!(key(rule, json!({"region": "N"})), key(rule, json!({"region": "S"})));
    assert_ne!(key(rule, json!({"region": "1"})), key(rule, json!({"region": 1})));
    assert_eq!(key(rule, json!({})), key("id = claims.region", json!({})));
}
