use super::*;
use expect_test::{Expect, expect};
use model::ViewKind;
use model::view::{EpochMark, ViewColumn};
use serde_json::Value;

use crate::protocol::payload::one_line;

fn change(key: &str, row: Option<&str>) -> RowChange {
    RowChange {
        key: RowKey::parse(key.as_bytes()).expect("an object"),
        row: row.map(|r| one_line(&Bytes::copy_from_slice(r.as_bytes()))),
    }
}

fn view() -> View {
    let column = |name: &str| ViewColumn { name: name.to_owned(), data_type: "Int64".to_owned(), nullable: false };
    let mut view = View::default();
    view.describe(Some(ViewInfo {
        name: "v".to_owned(),
        kind: ViewKind::View,
        topic: "andon.view.v".to_owned(),
        columns: vec![column("id")],
        key: vec!["id".to_owned()],
        description: None,
        sql: String::new(),
        empty_inputs: vec!["bom_line".to_owned()],
        maintenance: "incremental".to_owned(),
    }));
    view
}

fn publication(view: &View, effect: Effect<ViewChange>) -> String {
    match effect {
        Effect::Publish { change, .. } => {
            String::from_utf8(view.render(&change, None).expect("not empty")).expect("JSON")
        }
        Effect::Silent { .. } => "silent".to_owned(),
        Effect::Nothing => "nothing".to_owned(),
        Effect::Restart => "restart".to_owned(),
    }
}

fn epoch(epoch: u64, changes: Vec<RowChange>) -> ViewEpoch {
    ViewEpoch { epoch, as_of_ms: 1, written_at_ms: 2, position: epoch, changes }
}

#[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
fn check_snapshot(view: &View, expected: Expect) {
    let mut out = Vec::new();
    view.write_snapshot(None, &mut out);
    expected.assert_eq(std::str::from_utf8(&out).expect("JSON"));
}

#[test]
fn rows_are_ordered_by_the_values_of_their_key() {
    let mut view = view();
    let changes = vec![
        change(r#"{"id":10}"#, Some(r#"{"id":10}"#)),
        change(r#"{"id":9}"#, Some("{\"id\":\n9}")),
        change(r#"{"id":null}"#, Some(r#"{"id":null}"#)),
    ];
    let effect = view.apply(epoch(7, changes), true, 0);
    expect![[r#"{"epoch":7,"as_of_ms":1,"written_at_ms":2,"changes":[{"key":{"id":10},"row":{"id":10}},{"key":{"id":9},"row":{"id": 9}},{"key":{"id":null},"row":{"id":null}}]}"#]].assert_eq(&publication(&view, effect));
    check_snapshot(
        &view,
        expect![[
            r#"{"view":"v","key":["id"],"columns":[{"name":"id","type":"Int64","nullable":false}],"rows":[{"id":null},{"id": 9},{"id":10}],"epoch":7,"as_of_ms":1,"written_at_ms":2,"empty_inputs":["bom_line"]}"#
        ]],
    );
}

#[test]
fn an_epoch_that_is_written_again_is_not_published_again() {
    let mut view = view();
    let first = vec![change(r#"{"id":1}"#, Some(r#"{"id":1}"#)), change(r#"{"id":2}"#, None)];
    let effect = view.apply(epoch(7, first.clone()), true, 0);
    expect![[r#"{"epoch":7,"as_of_ms":1,"written_at_ms":2,"changes":[{"key":{"id":1},"row":{"id":1}}]}"#]]
        .assert_eq(&publication(&view, effect));
    let effect = view.apply(epoch(7, first), true, 0);
    assert_eq!(publication(&view, effect), "silent");
    let effect = view.apply(epoch(7, vec![change(r#"{"id":2}"#, None), change(r#"{"id":1}"#, None)]), true, 0);
    expect![[r#"{"epoch":7,"as_of_ms":1,"written_at_ms":2,"changes":[{"key":{"id":1},"row":null}]}"#]]
        .assert_eq(&publication(&view, effect));
    assert_eq!(view.rows_bytes, 0);
}

#[test]
fn who_was_away_is_told_the_net_change() {
    let mut view = view();
    let id = |n: u64, is_there: bool| {
        let json = format!(r#"{{"id":{n}}}"#);
        change(&json, is_there.then_some(&json))
    };
    view.apply(epoch(10, vec![id(1, true), id(2, true)]), false, COMPLETE_AGE_MS + 2);
    assert!(view.change_since(9).is_none(), "too old to know whether all departures are there");
    view.apply(epoch(20, vec![id(2, false), id(3, true)]), true, COMPLETE_AGE_MS + 2);
    view.apply(epoch(30, vec![id(3, false), id(4, true)]), true, COMPLETE_AGE_MS + 2);
    let since = |offset| view.change_since(offset).and_then(|change| view.render(&change, None));
    let rows = |offset| {
        let json: Value = serde_json::from_slice(&since(offset)?).ok()?;
        Some(json["changes"].to_string())
    };
    let (gone_3, new_4) = (r#"{"key":{"id":3},"row":null}"#, r#"{"key":{"id":4},"row":{"id":4}}"#);
    assert_eq!(rows(9), None);
    assert_eq!(rows(10), Some(format!(r#"[{{"key":{{"id":2}},"row":null}},{gone_3},{new_4}]"#)));
    assert_eq!(rows(20), Some(format!("[{gone_3},{new_4}]")));
    assert_eq!(rows(30), None, "nothing was missed");
}

#[test]
fn a_row_that_leaves_a_filter_leaves_the_reader() {
    let mut view = view();
    let spec = LensSpec { filter: Some("id > 1".to_owned()), ..LensSpec::default() };
    let lens = view.lens(&spec).expect("it fits");
    let row = |id: u8| change(r#"{"id":0}"#, Some(&format!(r#"{{"id":{id}}}"#)));
    let mut seen = Vec::new();
    for (n, id) in [1, 2, 3, 1, 0].into_iter().enumerate() {
        if let Effect::Publish { change, .. } = view.apply(epoch(n as u64 + 1, vec![row(id)]), true, 0) {
            let data = view.render(&change, Some(&lens)).unwrap_or_default();
            let json: Value = serde_json::from_slice(&data).unwrap_or_default();
            seen.push(
                json["changes"][0]["row"]["id"]
                    .as_u64()
                    .map_or_else(|| json.is_object().to_string(), |n| n.to_string()),
            );
        }
    }
    assert_eq!(seen, ["false", "2", "3", "true", "false"], "true: told that it is gone; false: not told");
}

#[test]
fn epochs_end_at_their_mark_or_where_another_begins() {
    let mut collector = EpochCollector::default();
    let mut complete = Vec::new();
    let mark = |epoch, last| Some(EpochMark { epoch, as_of_ms: 0, last });
    for (n, mark) in [mark(1, false), mark(1, true), mark(2, false), mark(3, false), None].into_iter().enumerate() {
        let place = Place { offset: 95 + n as i64, written_at_ms: 0 };
        collector.push(mark, place, change(&format!(r#"{{"id":{n}}}"#), None), &mut complete);
    }
    let sizes: Vec<_> = complete.iter().map(|e| (e.epoch, e.changes.len(), e.position)).collect();
    assert_eq!(sizes, [(1, 2, 97), (2, 1, 98), (3, 1, 99), (99, 1, 100)]);
}

#[test]
fn only_another_form_of_the_view_restarts_it() {
    let mut view = view();
    let same = view.info.as_deref().cloned();
    let before = Content::epoch(&view);
    assert!(matches!(view.describe(same.clone()), Effect::Nothing));
    let other = same.map(|info| ViewInfo { key: vec![], ..info });
    assert!(matches!(view.describe(other), Effect::Restart));
    assert_ne!(Content::epoch(&view), before);
    assert!(matches!(view.describe(None), Effect::Restart));
    assert!(!view.exists());
}

#[test]
fn a_key_is_a_json_object() {
    for bad in ["", "1", "[1]", "{", "null"] {
        assert_eq!(RowKey::parse(bad.as_bytes()), None, "{bad}");
    }
    assert!(RowKey::parse(b"{}").is_some());
}
