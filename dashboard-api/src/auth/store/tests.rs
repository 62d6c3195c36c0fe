use serde_json::json;

use super::*;

const LIVES: Lives = Lives { refresh_ms: 1_000, session_ms: 10_000 };

async fn store() -> (Store, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", dir.path().join("andon.db").display());
    (Store::open(&url).await.expect("it opens"), dir)
}

async fn with_ann() -> (Store, tempfile::TempDir) {
    let (store, dir) = store().await;
    let claims = Map::from_iter([("region".to_owned(), json!("N"))]);
    store.add_user("ann", "correct horse", &["viewer".to_owned()], &claims, 0).await.expect("added");
    (store, dir)
}

fn renewed(refreshed: Refreshed) -> SignedIn {
    match refreshed {
        Refreshed::Renewed(signed_in) => signed_in,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_the_right_password_of_an_active_user_is_good() {
    let (store, _dir) = with_ann().await;
    let check = async |name: &str, password: &str| store.check_password(name, password).await.expect("it answers");
    assert!(check("ann", "correct horse").await);
    assert!(!check("ann", "Correct horse").await);
    assert!(!check("bob", "correct horse").await);
    assert!(!check("ann", &"x".repeat(100_000)).await);
    assert!(matches!(
        store.add_user("ann", "another", &[], &Map::new(), 0).await,
        Err(StoreError::Exists(name)) if name == "ann"
    ));
    store.set_disabled("ann", true, 1).await.expect("changed");
    assert!(!check("ann", "correct horse").await);
    store.set_disabled("ann", false, 2).await.expect("changed");
    store.set_password("ann", "battery staple", 3).await.expect("changed");
    assert!(!check("ann", "correct horse").await && check("ann", "battery staple").await);
    assert!(matches!(store.set_password("bob", "battery staple", 3).await, Err(StoreError::Unknown(_))));
}

#[tokio::test]
async fn a_refresh_token_that_comes_twice_ends_the_session() {
    let (store, _dir) = with_ann().await;
    let first = store.sign_in("ann", "", LIVES, 0).await.expect("signed in");
    let other = store.sign_in("ann", "", LIVES, 0).await.expect("signed in");
    let second = renewed(store.refresh(&first.refresh_token, LIVES, 1).await.expect("it answers"));
    assert_eq!(first.session_id, second.session_id);
    assert_ne!(first.refresh_token, second.refresh_token);
    let replayed = store.refresh(&first.refresh_token, LIVES, 2).await.expect("it answers");
    assert!(matches!(replayed, Refreshed::Replayed { user } if user == "ann"));
    // Its successor is no longer good either, but the other session is.
    assert!(matches!(store.refresh(&second.refresh_token, LIVES, 3).await, Ok(Refreshed::Refused)));
    renewed(store.refresh(&other.refresh_token, LIVES, 3).await.expect("it answers"));
    assert!(store.directory(0).await.expect("read").revoked_sessions.contains(&first.session_id));
    assert!(matches!(store.refresh("rubbish", LIVES, 3).await, Ok(Refreshed::Refused)));
}

#[tokio::test]
async fn sessions_end_with_time_and_with_their_user() {
    let (store, _dir) = with_ann().await;
    let session = store.sign_in("ann", "", LIVES, 0).await.expect("signed in");
    let late = store.refresh(&session.refresh_token, LIVES, 1_001).await.expect("it answers");
    assert!(matches!(late, Refreshed::Refused), "the token was not used in time");

    let mut session = store.sign_in("ann", "", LIVES, 0).await.expect("signed in");
    for now_ms in (500..10_000).step_by(500) {
        session = renewed(store.refresh(&session.refresh_token, LIVES, now_ms).await.expect("it answers"));
    }
    let late = store.refresh(&session.refresh_token, LIVES, 10_001).await.expect("it answers");
    assert!(matches!(late, Refreshed::Refused), "the session is over");

    let session = store.sign_in("ann", "", LIVES, 20_000).await.expect("signed in");
    store.set_disabled("ann", true, 20_001).await.expect("changed");
    assert!(matches!(store.refresh(&session.refresh_token, LIVES, 20_002).await, Ok(Refreshed::Refused)));
}

#[tokio::test]
async fn every_change_tells_the_other_nodes() {
    let (store, _dir) = with_ann().await;
    let mut version = store.version().await.expect("read");
    let mut check = async |what: &str| {
        let now = store.version().await.expect("read");
        assert!(now > version, "{what}");
        version = now;
    };
    store.set_roles("ann", &["admin".to_owned()], &Map::new(), 0).await.expect("changed");
    check("roles").await;
    let session = store.sign_in("ann", "", LIVES, 0).await.expect("signed in");
    store.end_session(&session.session_id, 1).await.expect("ended");
    check("session").await;
    store.revoke_user("bob", 7).await.expect("revoked");
    check("user").await;
    let new = NewApiKey { name: "flink".to_owned(), roles: vec!["ingest".to_owned()], ..NewApiKey::default() };
    let key = store.add_api_key(&new, 0).await.expect("added");
    check("key").await;
    let directory = store.directory(0).await.expect("read");
    assert_eq!(directory.users["ann"].roles, ["admin"]);
    assert_eq!(directory.cutoffs_s["bob"], 7);
    let id = key.split('_').nth(1).expect("an id").to_owned();
    assert!(!directory.api_keys[&id].secret_hash.is_empty() && !key.contains(&directory.api_keys[&id].secret_hash));
    store.revoke_api_key(&id, 1).await.expect("revoked");
    check("key").await;
    assert!(store.directory(0).await.expect("read").api_keys.is_empty());
    assert!(matches!(store.revoke_api_key(&id, 2).await, Err(StoreError::Unknown(_))));
}

#[tokio::test]
async fn the_audit_log_is_bounded_and_read_backwards() {
    let (store, _dir) = store().await;
    let row = |n: i64| AuditRow {
        entry_id: format!("{n:03}"),
        at_ms: n,
        event: if n % 2 == 0 { "sign_in" } else { "denied" }.to_owned(),
        outcome: "ok".to_owned(),
        user: format!("u{}", n % 3),
        address: String::new(),
        subject: String::new(),
        detail: String::new(),
    };
    store.write_audit(&(0..100).map(row).collect::<Vec<_>>()).await.expect("written");
    store.write_audit(&[row(5)]).await.expect("an entry that is there already is let be");
    let ids = async |filter: AuditFilter| -> Vec<i64> {
        store.audit(&filter).await.expect("read").iter().map(|row| row.at_ms).collect()
    };
    assert_eq!(ids(AuditFilter { limit: 3, ..AuditFilter::default() }).await, [99, 98, 97]);
    let filter = AuditFilter {
        user: Some("u1".to_owned()),
        event: Some("sign_in".to_owned()),
        before: Some("090".to_owned()),
        limit: 2,
    };
    assert_eq!(ids(filter).await, [88, 82]);
    store.trim_audit(50, 20).await.expect("trimmed");
    let left = ids(AuditFilter { limit: 1_000, ..AuditFilter::default() }).await;
    assert_eq!((left.len(), left.last()), (20, Some(&80)));
    store.trim_audit(95, 20).await.expect("trimmed");
    assert_eq!(ids(AuditFilter { limit: 1_000, ..AuditFilter::default() }).await.len(), 5);
}

#[tokio::test]
async fn a_refresh_that_fails_costs_nothing() {
    let (store, _dir) = with_ann().await;
    let first = store.sign_in("ann", "", LIVES, 0).await.expect("signed in");
    let Pool::Sqlite(pool) = &store.pool else { panic!("it is SQLite") };
    let fail = "CREATE TRIGGER fail BEFORE INSERT ON auth_refresh_token BEGIN SELECT RAISE(ABORT, 'no'); END";
    sqlx::query(fail).execute(pool).await.expect("made");
    store.refresh(&first.refresh_token, LIVES, 1).await.expect_err("it fails half-way");
    sqlx::query("DROP TRIGGER fail").execute(pool).await.expect("dropped");
    renewed(store.refresh(&first.refresh_token, LIVES, 2).await.expect("it answers"));
}

#[tokio::test]
async fn what_is_over_is_forgotten_whosever_it_was() {
    let (store, _dir) = with_ann().await;
    let old = store.sign_in("ann", "", LIVES, 0).await.expect("signed in");
    renewed(store.refresh(&old.refresh_token, LIVES, 1).await.expect("it answers"));
    let day_ms = 24 * 3_600_000;
    assert_eq!(store.sweep(day_ms).await.expect("swept"), 0, "they may still matter");
    assert_eq!(store.sweep(day_ms + 11_000).await.expect("swept"), 2);
    assert!(store.session_of(&old.refresh_token).await.expect("it answers").is_none());
}
