//! Other programs for a running engine: in the end the topics hold what an engine holds that never ran another one.
//!
//! `ANDON_CHANGE_SEED=n` replays a seed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use ingest::log::local::{LocalLog, LocalLogOptions};
use model::clock::ManualClock;
use model::{EpochSource, Log, SourceEpoch, topics};
use pipelines::{Change, Changed, Engine, RunOptions, StateOptions, StateStore, run};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::publish::{Prepared, read_all, rows, until_live};
use crate::state::net;
use crate::world::{NOW_US, World, program};

const SECOND_US: i64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

type Views = Vec<(String, String)>;

/// By name, what a view may mean.
const POOL: &[(&str, &[&str])] = &[
    (
        "by_status",
        &[
            "SELECT status, count(*) AS n, sum(amount) AS total FROM orders GROUP BY status",
            "SELECT status, count(*) AS n, sum(amount) AS total FROM orders WHERE qty > 3 GROUP BY status",
            "SELECT status, customer_id, max(qty) AS n FROM orders GROUP BY status, customer_id",
        ],
    ),
    ("all_orders", &["SELECT count(*) AS n FROM orders", "SELECT count(*) AS n, sum(qty) AS qty FROM orders"]),
    (
        "named",
        &[
            "SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer_id",
            "SELECT o.id, c.name FROM orders o LEFT JOIN customers c ON c.id = o.customer_id",
        ],
    ),
    (
        "late_orders",
        &["SELECT id FROM orders WHERE status = 'late'", "SELECT id, day FROM orders WHERE status = 'late'"],
    ),
    (
        "recent",
        &[
            "SELECT id FROM orders WHERE created_at > CURRENT_TIMESTAMP - INTERVAL '10' DAY",
            "SELECT id, CURRENT_DATE AS today FROM orders WHERE created_at > CURRENT_TIMESTAMP",
        ],
    ),
    (
        "top_orders",
        &[
            "SELECT id, customer_id, rn FROM (SELECT id, customer_id, ROW_NUMBER() OVER (PARTITION BY customer_id \
             ORDER BY amount DESC NULLS LAST, id) AS rn FROM orders) AS t WHERE rn <= 2",
            "SELECT id, amount FROM orders ORDER BY amount DESC NULLS LAST, id LIMIT 5",
        ],
    ),
    (
        "units",
        &[
            "SELECT i.sku, sum(i.units) AS units FROM items i JOIN orders o ON o.id = i.order_id GROUP BY i.sku",
            "SELECT DISTINCT sku FROM items UNION SELECT DISTINCT grp FROM customers",
        ],
    ),
    ("over_by_status", &["SELECT sum(n) AS n FROM by_status", "SELECT status FROM by_status WHERE n > 2"]),
    ("over_named", &["SELECT name, count(*) AS n FROM named GROUP BY name"]),
    ("no_items", &["SELECT id FROM orders o WHERE NOT EXISTS (SELECT 1 FROM items i WHERE i.order_id = o.id)"]),
];

/// What each view of a random choice reads is among them.
fn random_views(rng: &mut StdRng, before: Option<&Views>) -> Views {
    let mut views = Views::new();
    for (name, meanings) in POOL {
        let needs = [("over_by_status", "by_status"), ("over_named", "named")];
        let needed = needs.iter().find(|(n, _)| n == name).map(|(_, needed)| *needed);
        let old = before.and_then(|b| b.iter().find(|(n, _)| n == name));
        let is_there = match old {
            Some(_) => rng.random_bool(0.85),
            None => rng.random_bool(0.6),
        };
        if !is_there || needed.is_some_and(|n| views.iter().all(|(v, _)| v != n)) {
            continue;
        }
        let sql = match old {
            Some((_, sql)) if rng.random_bool(0.5) => sql.clone(),
            _ => meanings[rng.random_range(0..meanings.len())].to_owned(),
        };
        views.push(((*name).to_owned(), sql));
    }
    views
}

/// A world that goes on as long as it is allowed to.
struct Living {
    world: Arc<Mutex<World>>,
    clock: ManualClock,
    allowed: Arc<AtomicUsize>,
    past: Arc<Mutex<Vec<SourceEpoch>>>,
}

#[async_trait::async_trait]
impl EpochSource for Living {
    async fn next_epoch(
        &mut self,
        wait: Duration,
    ) -> Result<Option<SourceEpoch>, Box<dyn std::error::Error + Send + Sync>> {
        if self.allowed.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(wait.min(Duration::from_millis(5))).await;
            return Ok(None);
        }
        let mut world = self.world.lock().expect("nobody panicked");
        let n_changes = world.rng.random_range(1..30);
        let epoch = net(world.random_epoch(n_changes));
        let passes = world.rng.random_range(0..20_000) * SECOND_US;
        self.clock.set(model::Clock::now_us(&self.clock) + passes);
        self.past.lock().expect("nobody panicked").push(epoch.clone());
        self.allowed.fetch_sub(1, Ordering::SeqCst);
        Ok(Some(epoch))
    }

    fn lag_records(&self) -> Option<u64> {
        Some(0)
    }

    fn dead_letters(&self) -> u64 {
        0
    }

    fn table_rows(&self, table: &str) -> Option<RecordBatch> {
        self.world.lock().expect("nobody panicked").table_rows(table)
    }
}

/// A stage that runs over a [`Living`] world, with stored state.
struct Running {
    log: Arc<dyn Log>,
    store: String,
    world: Arc<Mutex<World>>,
    clock: ManualClock,
    allowed: Arc<AtomicUsize>,
    past: Arc<Mutex<Vec<SourceEpoch>>>,
    changes: mpsc::Sender<Change>,
    shutdown: CancellationToken,
    stage: Option<tokio::task::JoinHandle<Result<(), pipelines::Error>>>,
}

impl Running {
    fn new(seed: u64, log: Arc<dyn Log>, store: String) -> Self {
        Self {
            log,
            store,
            world: Arc::new(Mutex::new(World::new(seed))),
            clock: ManualClock::at(NOW_US),
            allowed: Arc::default(),
            past: Arc::default(),
            changes: mpsc::channel(1).0,
            shutdown: CancellationToken::new(),
            stage: None,
        }
    }

    async fn start(&mut self, views: &Views) {
        let program = program(views);
        let store = StateStore::open(&self.store).await.expect("the store opens");
        let restored = store.restore(&program).await.expect("the state fits");
        let (changes, receiver) = mpsc::channel(1);
        let state = StateOptions { store, interval: Duration::from_millis(20), unsaved_bytes_max: 1 << 20 };
        let options = RunOptions { stream_clock: None, state: Some(state), changes: Some(receiver) };
        let source = Living {
            world: Arc::clone(&self.world),
            clock: self.clock.clone(),
            allowed: Arc::clone(&self.allowed),
            past: Arc::clone(&self.past),
        };
        let engine = Engine::new(program, Arc::new(self.clock.clone())).expect("column types can be kept");
        self.changes = changes;
        self.shutdown = CancellationToken::new();
        let since_ms = chrono::Utc::now().timestamp_millis();
        let stage = run(engine, Box::new(source), Arc::clone(&self.log), options, restored, self.shutdown.clone());
        self.stage = Some(tokio::spawn(stage));
        until_live(&self.log, since_ms).await;
    }

    async fn change(&self, views: &Views) -> Changed {
        let (answer, outcome) = oneshot::channel();
        let change = Change { program: program(views), answer };
        assert!(self.changes.send(change).await.is_ok(), "the stage runs");
        tokio::time::timeout(PATIENCE, outcome).await.expect("in time").expect("it is answered")
    }

    async fn live_through(&self, n_epochs: usize) {
        self.allowed.fetch_add(n_epochs, Ordering::SeqCst);
        while self.allowed.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn stop(&mut self) {
        self.shutdown.cancel();
        self.stage.take().expect("it was started").await.expect("no panic").expect("no error");
    }

    /// What the topics must hold: what an engine says that has only ever had these views.
    async fn check(&self, views: &Views, context: &str) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let fresh: Arc<dyn Log> = LocalLog::open(dir.path(), LocalLogOptions::default()).expect("the log opens");
        let epochs = self.past.lock().expect("nobody panicked").clone();
        let engine = Engine::new(program(views), Arc::new(self.clock.clone())).expect("column types can be kept");
        let shutdown = CancellationToken::new();
        let source = Box::new(Prepared { epochs: epochs.into() });
        let stage =
            tokio::spawn(run(engine, source, Arc::clone(&fresh), RunOptions::default(), None, shutdown.clone()));
        until_live(&fresh, 0).await;
        shutdown.cancel();
        stage.await.expect("no panic").expect("no error");
        for (name, sql) in views {
            let topic = topics::view(name);
            let (got, wanted) = (rows(&read_all(&*self.log, &topic).await), rows(&read_all(&*fresh, &topic).await));
            let only = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>| -> Vec<_> {
                a.iter().filter(|(key, row)| b.get(*key) != Some(row)).map(|(_, row)| row.clone()).take(5).collect()
            };
            let (more, less) = (only(&got, &wanted), only(&wanted, &got));
            assert!(got == wanted, "{context}: {name}: {sql}\nonly got {more:#?}\nonly wanted {less:#?}");
        }
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("ANDON_CHANGE_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (1..=4).collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_changes_of_the_program_leave_what_a_fresh_engine_says() {
    for seed in seeds() {
        let context = format!("ANDON_CHANGE_SEED={seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let log = LocalLog::open(dir.path().join("log"), LocalLogOptions::default()).expect("the log opens");
        let mut running = Running::new(seed, log, dir.path().join("state").display().to_string());
        let mut views = random_views(&mut rng, None);
        running.start(&views).await;
        for round in 0..6 {
            running.live_through(rng.random_range(1..15)).await;
            let next = random_views(&mut rng, Some(&views));
            // The world goes on while the views are built.
            running.allowed.fetch_add(rng.random_range(0..40), Ordering::SeqCst);
            let outcome = running.change(&next).await;
            let Changed::Done(built) = outcome else { panic!("{context} round {round}: {outcome:?}") };
            let is_new = |name: &String| {
                let of = |views: &Views| views.iter().find(|(n, _)| n == name).map(|(_, sql)| sql.clone());
                of(&views) != of(&next)
            };
            for (name, _) in next.iter().filter(|(name, _)| is_new(name)) {
                assert!(built.contains(name), "{context} round {round}: {name} is not among {built:?}");
            }
            views = next;
            if rng.random_bool(0.3) {
                running.live_through(1).await;
                running.stop().await;
                running.start(&views).await;
            }
        }
        running.live_through(3).await;
        running.stop().await;
        // The last step before the end is no flush: a start brings everything to the same time.
        running.start(&views).await;
        running.stop().await;
        running.check(&views, &context).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_not_changed_is_not_written_again() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log: Arc<dyn Log> = LocalLog::open(dir.path().join("log"), LocalLogOptions::default()).expect("the log opens");
    let mut running = Running::new(3, Arc::clone(&log), dir.path().join("state").display().to_string());
    let view = |name: &str, sql: &str| (name.to_owned(), sql.to_owned());
    let kept = view("kept", "SELECT status, count(*) AS n FROM orders GROUP BY status");
    let before = view("other", "SELECT id, qty FROM orders WHERE qty > 3");
    running.start(&vec![kept.clone(), before.clone()]).await;
    running.live_through(5).await;
    // Nothing changes, and when that has been said all is written that came before.
    assert_eq!(running.change(&vec![kept.clone(), before]).await, Changed::Done(Vec::new()));
    let old: BTreeMap<String, String> = rows(&read_all(&*log, &topics::view("other")).await);
    let n_kept = read_all(&*log, &topics::view("kept")).await.len();
    let n_other = read_all(&*log, &topics::view("other")).await.len();

    // Two rows more, and all others as they were.
    let after = view("other", "SELECT id, qty FROM orders WHERE qty > 2");
    assert_eq!(running.change(&vec![kept.clone(), after]).await, Changed::Done(vec!["other".to_owned()]));
    assert_eq!(read_all(&*log, &topics::view("kept")).await.len(), n_kept);
    let records = read_all(&*log, &topics::view("other")).await;
    let new = rows(&records);
    assert!(old.iter().all(|(key, row)| new.get(key) == Some(row)));
    assert_eq!(records.len() - n_other, new.len() - old.len(), "only the difference is written");

    // A view that is dropped leaves the catalog; its topic stays.
    assert_eq!(running.change(&vec![kept.clone()]).await, Changed::Done(Vec::new()));
    let names: Vec<String> = rows(&read_all(&*log, topics::CATALOG).await).into_keys().collect();
    assert_eq!(names, ["kept"]);
    // When it comes back, what is on its topic is brought in line.
    let back = view("other", "SELECT id, qty FROM orders WHERE qty > 10");
    assert_eq!(running.change(&vec![kept, back]).await, Changed::Done(vec!["other".to_owned()]));
    let now = rows(&read_all(&*log, &topics::view("other")).await);
    assert!(now.len() < new.len() && now.iter().all(|(key, row)| new.get(key) == Some(row)));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_cannot_be_made_in_place_says_so_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log: Arc<dyn Log> = LocalLog::open(dir.path().join("log"), LocalLogOptions::default()).expect("the log opens");
    let mut running = Running::new(4, Arc::clone(&log), dir.path().join("state").display().to_string());
    let view = |name: &str, sql: &str| (name.to_owned(), sql.to_owned());
    let kept = view("kept", "SELECT status, count(*) AS n FROM orders GROUP BY status");
    running.start(&vec![kept.clone()]).await;
    running.live_through(5).await;

    let recomputed = view(
        "chain",
        "WITH RECURSIVE t AS (SELECT id, qty FROM orders UNION ALL SELECT id, qty - 1 FROM t WHERE qty > 1) \
         SELECT id, count(*) AS n FROM t GROUP BY id",
    );
    let outcome = running.change(&vec![kept.clone(), recomputed]).await;
    assert!(matches!(&outcome, Changed::NeedsStart(why) if why.contains("chain")), "{outcome:?}");

    running.live_through(5).await;
    running.stop().await;
    running.start(&vec![kept.clone()]).await;
    running.stop().await;
    running.check(&vec![kept], "after a refusal").await;
}
