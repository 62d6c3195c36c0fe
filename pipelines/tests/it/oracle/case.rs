//! A whole case as data: tables, views and what happens. It is run, and made smaller when it fails.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::RecordBatch;
use model::clock::ManualClock;
use model::{SourceEpoch, SourceTable, SqlFile, ViewInfo};
use pipelines::{Engine, EpochOutput, Program, Saver, StateStore, StepMode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::compare::{Line, difference, lines};
use super::data::{DAY_US, NOW_US, Op, State, TableSpec, random_ops, random_tables, source_tables};
use super::expr::{Grammar, Out};
use crate::world::shards;

/// A query that is kept, or only named.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) sql: String,
    pub(crate) columns: Vec<Out>,
    pub(crate) materialized: bool,
    pub(crate) features: Vec<&'static str>,
}

impl View {
    fn statement(&self) -> String {
        let kind = if self.materialized { "MATERIALIZED VIEW" } else { "VIEW" };
        format!("CREATE {kind} {} AS {};", self.name, self.sql)
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Changes that make one epoch.
    Epoch(Vec<Op>),
    /// Business time is now this.
    Clock(i64),
    /// Every view is compared.
    Check,
    /// The state is stored.
    Save,
    /// The engine is gone; another one goes on from what was stored. With `edited`, the last view has another query.
    Kill { edited: bool },
}

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) tables: Vec<TableSpec>,
    pub(crate) views: Vec<View>,
    pub(crate) events: Vec<Event>,
    /// What the last view becomes when it is edited.
    pub(crate) edit: Option<View>,
}

/// Where a view went wrong, and how.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// The view, if one can be named.
    pub(crate) view: Option<String>,
    pub(crate) what: String,
}

/// What a run saw beside failures.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// View → how it is kept.
    pub(crate) maintenance: BTreeMap<String, String>,
    pub(crate) n_compared: usize,
    pub(crate) n_rows: usize,
    pub(crate) n_restores: usize,
    /// Comparisons that plain DataFusion could not take part in, with its message.
    pub(crate) plain_failed: Vec<String>,
}

/// One case in so many stores its state, is killed and goes on.
const STORED_ONE_IN: u64 = 3;

/// Most levels of queries within queries.
const DEPTH_MAX: usize = 2;

impl Case {
    pub(crate) fn random(seed: u64, n_views: usize) -> Self {
        Self::make(seed, n_views, false)
    }

    /// Queries that other databases understand as well.
    pub(crate) fn random_portable(seed: u64, n_views: usize) -> Self {
        Self::make(seed, n_views, true)
    }

    fn make(seed: u64, n_views: usize, portable: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let tables = random_tables(&mut rng);
        let mut views: Vec<View> = Vec::new();
        let mut known = Vec::new();
        let mut n_queries = 0;
        for i in 0..n_views {
            let mut grammar = Grammar {
                rng: &mut rng,
                tables: &tables,
                views: std::mem::take(&mut known),
                features: std::collections::BTreeSet::new(),
                n_aliases: 0,
                portable,
                n_queries,
            };
            let query = grammar.query(DEPTH_MAX);
            let features = grammar.features.iter().copied().collect();
            n_queries = grammar.n_queries;
            known = grammar.views;
            let name = format!("v{i}");
            known.push((name.clone(), query.columns.clone()));
            views.push(View {
                name,
                sql: query.sql,
                columns: query.columns,
                materialized: rng.random_bool(0.85),
                features,
            });
        }
        // The last view is what it becomes later; nothing reads either of the two.
        let edit = views.pop().map(|v| View { name: format!("v{}", n_views - 2), materialized: true, ..v });
        if let Some(last) = views.last_mut() {
            last.materialized = true;
        }
        let stored = !portable && seed % STORED_ONE_IN == 0;
        let events = random_events(&mut rng, &tables, stored);
        let edit = edit.filter(|v| stored && !v.sql.contains(&format!("{} ", v.name)));
        Self { seed, tables, views, events, edit }
    }

    /// Only this view and those below it, without what nothing needs.
    pub(crate) fn only(&self, view: &str) -> Self {
        let mut wanted = vec![view.to_owned()];
        let mut views: Vec<View> = Vec::new();
        for v in self.views.iter().rev() {
            if wanted.contains(&v.name) {
                wanted.extend(v.sql.split(' ').map(str::to_owned));
                views.insert(0, v.clone());
            }
        }
        Self { views, ..self.clone() }
    }

    fn files(&self) -> Vec<SqlFile> {
        self.views.iter().map(|v| SqlFile { path: v.name.clone(), text: v.statement() }).collect()
    }

    /// Leaves out the views that cannot be planned, with those over them, and says why each.
    pub(crate) fn drop_refused(&mut self) -> Vec<(View, String)> {
        let tables = source_tables(&self.tables);
        let mut refused: Vec<(View, String)> = Vec::new();
        while let Err(all) = Program::load(&tables, &self.files(), &[]) {
            let before = self.views.len();
            self.views.retain(|view| {
                let Some(found) = all.iter().find(|d| d.path == view.name) else { return true };
                refused.push((view.clone(), found.to_string()));
                false
            });
            assert!(self.views.len() < before, "a message names no view: {all:?}");
        }
        if let Some(edit) = &self.edit
            && (self.views.last().is_none_or(|last| last.name != edit.name) || self.edited().explained().is_err())
        {
            self.edit = None;
        }
        let names: Vec<&str> = refused.iter().map(|(view, _)| view.name.as_str()).collect();
        // A view that only misses one that was refused has nothing wrong of its own.
        let is_consequence = |message: &str| names.iter().any(|n| message.contains(&format!("table '{n}' not found")));
        refused.iter().filter(|(_, message)| !is_consequence(message)).cloned().collect()
    }

    /// Runs everything without comparing, and gives the tables, the kept views and the time at the end.
    pub(crate) fn final_contents(&self) -> Result<(State, Vec<(String, RecordBatch)>, i64), Failure> {
        let mut run = Run::new(self)?;
        for event in &self.events {
            match event {
                Event::Clock(now_us) => run.clock.set(*now_us),
                Event::Epoch(ops) => run.epoch(ops, self),
                Event::Check => run.flush(),
                Event::Save | Event::Kill { .. } => {}
            }
        }
        let views = run.engine.views();
        let contents = |view: ViewInfo| {
            let batch = run.engine.contents(&view.name).expect("decodes").expect("known view");
            (view.name, batch)
        };
        let kept = views.into_iter().map(contents).collect();
        Ok((run.state, kept, model::Clock::now_us(&run.clock)))
    }

    /// How the views are kept.
    pub(crate) fn explained(&self) -> Result<String, String> {
        match Program::load(&source_tables(&self.tables), &self.files(), &[]) {
            Ok(program) => Ok(self.views.iter().filter_map(|v| program.explain(&v.name)).collect()),
            Err(refused) => Err(format!("{refused:?}")),
        }
    }

    /// The case with its last view edited.
    fn edited(&self) -> Self {
        let mut case = self.clone();
        if let (Some(edit), Some(last)) = (&self.edit, case.views.last_mut()) {
            *last = edit.clone();
        }
        case
    }

    /// Runs everything; a panic is a failure too.
    pub(crate) fn run(&self) -> Result<Report, Failure> {
        catch_unwind(AssertUnwindSafe(|| Run::new(self)?.all(self))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(Failure { view: None, what: format!("panic: {}", text.unwrap_or_default()) })
        })
    }
}

fn random_events(rng: &mut StdRng, tables: &[TableSpec], stored: bool) -> Vec<Event> {
    let mut events = Vec::new();
    let mut now_us = NOW_US;
    for _ in 0..rng.random_range(3..5) {
        for _ in 0..rng.random_range(1..4) {
            let n = *[1, 3, 25, 80].get(rng.random_range(0..4)).expect("four sizes");
            events.push(Event::Epoch(random_ops(rng, tables, n)));
            if stored && rng.random_bool(0.5) {
                events.push(Event::Save);
            }
            if stored && rng.random_bool(0.4) {
                events.push(Event::Kill { edited: rng.random_bool(0.3) });
            }
        }
        if rng.random_bool(0.5) {
            now_us += rng.random_range(-2..9) * DAY_US * 11 / 24;
            events.push(Event::Clock(now_us));
        }
        events.push(Event::Check);
    }
    events
}

/// A reader of a view's topic, who knows rows by key.
type Reader = BTreeMap<String, Line>;

struct Run {
    tables: Vec<SourceTable>,
    state: State,
    engine: Engine,
    clock: ManualClock,
    shuffle: StdRng,
    readers: Vec<Reader>,
    runtime: tokio::runtime::Runtime,
    /// Where state is stored, for cases that are killed.
    stored: Option<Stored>,
}

struct Stored {
    dir: tempfile::TempDir,
    saver: Option<Saver>,
    /// Epochs that a killed engine takes again, with the time of each.
    since: Vec<(i64, SourceEpoch)>,
}

fn load(case: &Case, tables: &[SourceTable]) -> Result<Program, Failure> {
    let refused = |all: Vec<model::Diagnostic>| Failure { view: None, what: format!("refused: {all:?}") };
    Program::load_sharded(tables, &case.files(), &[], shards()).map_err(refused)
}

fn start(program: Program, clock: &ManualClock) -> Result<Engine, Failure> {
    Engine::new(program, std::sync::Arc::new(clock.clone()))
        .map_err(|e| Failure { view: None, what: format!("cannot start: {e}") })
}

impl Run {
    fn new(case: &Case) -> Result<Self, Failure> {
        let tables = source_tables(&case.tables);
        let clock = ManualClock::at(NOW_US);
        let engine = start(load(case, &tables)?, &clock)?;
        let readers = vec![Reader::new(); engine.views().len()];
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let state = State::new(&case.tables);
        let shuffle = StdRng::seed_from_u64(case.seed);
        Ok(Self { tables, state, engine, clock, shuffle, readers, runtime, stored: None })
    }

    /// A new engine that stands where the last stored state stood, and then takes again what came since.
    fn begin(&mut self, case: &Case) -> Result<(), Failure> {
        let Some(stored) = &mut self.stored else { return Ok(()) };
        let place = stored.dir.path().display().to_string();
        let failed = |e: &dyn std::error::Error| Failure { view: None, what: format!("state: {e} {:?}", e.source()) };
        stored.saver = None;
        let program = load(case, &self.tables)?;
        let (store, restored) = self
            .runtime
            .block_on(async {
                let store = StateStore::open(&place).await?;
                let restored = store.restore(&program).await?;
                Ok::<_, pipelines::StateError>((store, restored))
            })
            .map_err(|e| failed(&e))?;
        let now_us = model::Clock::now_us(&self.clock);
        let mut engine = start(program, &self.clock)?;
        let saver = Saver::new(store, &mut engine, restored.as_ref()).map_err(|e| failed(&e))?;
        if let Some(restored) = &restored {
            engine.restore(restored).map_err(|e| failed(&e))?;
        }
        stored.saver = Some(saver);
        for (at_us, epoch) in &stored.since {
            self.clock.set(*at_us);
            engine.step(epoch, StepMode::Normal);
        }
        self.clock.set(now_us);
        self.engine = engine;
        self.flush();
        // What readers were told before is not known here; they begin with what is there.
        for (reader, info) in self.readers.iter_mut().zip(self.engine.views()) {
            reader.clear();
            let contents = self.engine.contents(&info.name).expect("decodes").expect("known view");
            for row in 0..contents.num_rows() {
                let row = contents.slice(row, 1);
                reader.insert(key_of(&row, &info.key), lines(&[row]).remove(0));
            }
        }
        Ok(())
    }

    fn save(&mut self) -> Result<(), Failure> {
        let Some(stored) = &mut self.stored else { return Ok(()) };
        let Some(saver) = &stored.saver else { return Ok(()) };
        stored.since.clear();
        let saved = self.runtime.block_on(saver.save(&mut self.engine));
        saved.map_err(|e| Failure { view: None, what: format!("cannot save: {e}") })
    }

    fn all(mut self, case: &Case) -> Result<Report, Failure> {
        let mut case = case.clone();
        if case.events.iter().any(|e| matches!(e, Event::Save | Event::Kill { .. })) {
            let dir = tempfile::tempdir().expect("a temporary folder");
            self.stored = Some(Stored { dir, saver: None, since: Vec::new() });
            self.begin(&case)?;
        }
        let case = &mut case;
        let mut report = Report::default();
        for view in self.engine.views() {
            report.maintenance.insert(view.name, view.maintenance);
        }
        for (i, event) in case.events.clone().iter().enumerate() {
            match event {
                Event::Clock(now_us) => self.clock.set(*now_us),
                Event::Epoch(ops) => self.epoch(ops, case),
                Event::Check => self.check(case, &format!("at event {i}"), &mut report)?,
                Event::Save => self.save()?,
                Event::Kill { edited } => {
                    if *edited && case.edit.is_some() {
                        *case = case.edited();
                    }
                    self.begin(case)?;
                    report.n_restores += 1;
                }
            }
        }
        self.nothing_is_left(case, &mut report)?;
        Ok(report)
    }

    fn epoch(&mut self, ops: &[Op], case: &Case) {
        let net = self.stored.is_some();
        let epoch = self.state.apply(ops, &case.tables, &self.tables, &mut self.shuffle, net);
        if let Some(stored) = &mut self.stored {
            stored.since.push((model::Clock::now_us(&self.clock), epoch.clone()));
        }
        let output = self.engine.step(&epoch, StepMode::Normal);
        self.read(&output);
    }

    fn flush(&mut self) {
        let output = self.engine.step(&SourceEpoch::default(), StepMode::Flush);
        self.read(&output);
    }

    fn read(&mut self, output: &EpochOutput) {
        let infos = self.engine.views();
        for change in &output.changes {
            let info = &infos[change.view];
            let reader = &mut self.readers[change.view];
            for row in 0..change.deletes.num_rows() {
                reader.remove(&key_text(&change.deletes.slice(row, 1)));
            }
            for row in 0..change.upserts.num_rows() {
                let row = change.upserts.slice(row, 1);
                reader.insert(key_of(&row, &info.key), lines(&[row]).remove(0));
            }
        }
    }

    /// Every view equals the same SQL over the tables as they stand, and so do its readers.
    fn check(&mut self, case: &Case, context: &str, report: &mut Report) -> Result<(), Failure> {
        self.flush();
        for (at, info) in self.engine.views().iter().enumerate() {
            let view = case.views.iter().find(|v| v.name == info.name).expect("the case has it");
            let failed = |what: String| Failure { view: Some(view.name.clone()), what: format!("{context}: {what}") };
            let rows = |name: &str| {
                let at = self.tables.iter().position(|t| &*t.name == name)?;
                Some(self.state.table_rows(at, &case.tables[at], &self.tables[at]))
            };
            let plain = match self.runtime.block_on(self.engine.query(&view.sql, &rows)) {
                Ok((_, plain)) => lines(&plain),
                Err(e) => {
                    let source = std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default();
                    report.plain_failed.push(format!("{source}: {}", view.sql));
                    continue;
                }
            };
            if let Some((_, reason)) = self.engine.failures().iter().find(|(name, _)| *name == view.name) {
                return Err(failed(format!("the view has stopped: {reason}")));
            }
            let batch = self.engine.contents(&view.name).expect("decodes").expect("known view");
            let kept = lines(std::slice::from_ref(&batch));
            report.n_compared += 1;
            report.n_rows += plain.len();
            if let Some(text) = difference(&kept, &plain) {
                return Err(failed(text));
            }
            check_reader(&self.readers[at], &batch, &info.key).map_err(failed)?;
        }
        Ok(())
    }

    /// When all rows are gone, so is all state.
    fn nothing_is_left(&mut self, case: &Case, report: &mut Report) -> Result<(), Failure> {
        let all = |(table, rows): (usize, &BTreeMap<i64, _>)| {
            rows.keys().map(|key| Op { table, key: *key, row: None }).collect::<Vec<_>>()
        };
        let ops: Vec<Op> = self.state.rows.iter().enumerate().flat_map(all).collect();
        self.epoch(&ops, case);
        self.flush();
        self.check(case, "after everything was deleted", report)?;
        if !report.plain_failed.is_empty() {
            return Ok(());
        }
        // Stored groups that are gone are kept until a checkpoint has removed them.
        self.save()?;
        let mut fresh = Self::new(case)?;
        fresh.clock.set(model::Clock::now_us(&self.clock));
        fresh.flush();
        for ((view, left), (_, expected)) in self.engine.state_rows().into_iter().zip(fresh.engine.state_rows()) {
            if left != expected {
                let what = format!("{left} entries of state are left when all rows are gone, of {expected}");
                return Err(Failure { view: Some(view.to_owned()), what });
            }
        }
        Ok(())
    }
}

fn key_of(row: &RecordBatch, key: &[String]) -> String {
    let columns: Vec<usize> = key.iter().map(|k| row.schema().index_of(k).expect("a key column")).collect();
    key_text(&row.project(&columns).expect("columns exist"))
}

fn key_text(row: &RecordBatch) -> String {
    lines(std::slice::from_ref(row)).first().map(ToString::to_string).unwrap_or_default()
}

/// A reader by key knows one row for each key, and it is a row of the view.
fn check_reader(reader: &Reader, contents: &RecordBatch, key: &[String]) -> Result<(), String> {
    let mut rows: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for row in 0..contents.num_rows() {
        let row = contents.slice(row, 1);
        rows.entry(key_of(&row, key)).or_default().extend(lines(&[row]));
    }
    if key.len() < contents.num_columns()
        && let Some((key, all)) = rows.iter().find(|(_, all)| all.len() > 1)
    {
        return Err(format!("the key is not unique: {key} has {} rows", all.len()));
    }
    for (key, row) in reader {
        if !rows.get(key).is_some_and(|all| all.contains(row)) {
            return Err(format!("a reader knows a row that is not there: {row}"));
        }
    }
    match rows.keys().find(|key| !reader.contains_key(*key)) {
        Some(key) => Err(format!("a reader was never told of {key}")),
        None => Ok(()),
    }
}
