//! The book of open alerts. Pure: epochs of rules' rows go in, changed alerts and their events come out, and nothing
//! is asked of the outside but the time for limiting updates.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use metrics::{counter, gauge};
use model::Clock;
use serde_json::{Map, Value};
use tracing::warn;
use uuid::Uuid;

use crate::alert::{Alert, AlertEvent, Reason, State};
use crate::priority::priority;
use crate::rules::{Rule, Severity};
use crate::tail::{Change, RuleEpoch, SnapshotRow};

/// Open alerts that one rule can have. Rows beyond are counted as errors of the rule and do not fire: a rule that
/// floods is a mistake in the rule.
pub(crate) const OPEN_ALERTS_PER_RULE_MAX: usize = 10_000;
/// A firing alert that changes is told again at most this often, wall clock; the last change is always told.
pub(crate) const UPDATE_INTERVAL_MS: i64 = 5_000;

/// How far a rule's topic has been read into the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Next offset to read.
    pub(crate) next_offset: i64,
    /// Business time of the last epoch, milliseconds since 1970.
    pub(crate) as_of_ms: i64,
}

/// What one round changed; stored in one transaction.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) alerts: HashMap<Uuid, Alert>,
    pub(crate) events: Vec<AlertEvent>,
    pub(crate) progress: BTreeMap<String, Progress>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.alerts.is_empty() && self.events.is_empty() && self.progress.is_empty()
    }
}

#[derive(Debug)]
struct Open {
    alert: Alert,
    told_at_ms: i64,
}

/// What an event says besides the row. A change of these is worth telling.
#[derive(PartialEq)]
struct Facts {
    severity: Severity,
    title: String,
    impact: Option<String>,
    priority: f64,
}

type Key = Arc<str>;

#[derive(Debug)]
pub(crate) struct Book {
    rules: HashMap<String, Arc<Rule>>,
    open: HashMap<String, BTreeMap<Key, Open>>,
    /// Alerts that changed since their last event.
    pending: HashSet<(String, Key)>,
    progress: HashMap<String, Progress>,
    last_seq: i64,
    clock: Arc<dyn Clock>,
}

impl Book {
    /// A book with the open alerts and positions that the store has.
    pub(crate) fn new(
        rules: &[Rule],
        stored: Vec<Alert>,
        progress: HashMap<String, Progress>,
        last_seq: i64,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let rules = rules.iter().map(|r| (r.name.clone(), Arc::new(r.clone()))).collect();
        let mut open: HashMap<String, BTreeMap<Key, Open>> = HashMap::new();
        let mut pending = HashSet::new();
        for alert in stored {
            let rule = alert.rule.to_string();
            if alert.is_update_pending {
                pending.insert((rule.clone(), Arc::clone(&alert.key)));
            }
            open.entry(rule).or_default().insert(Arc::clone(&alert.key), Open { alert, told_at_ms: i64::MIN });
        }
        let book = Self { rules, open, pending, progress, last_seq, clock };
        book.show_metrics();
        book
    }

    /// The stored position in a rule's topic.
    pub(crate) fn position(&self, rule: &str) -> i64 {
        self.progress.get(rule).map_or(0, |p| p.next_offset)
    }

    /// Ends the alerts of rules that are no longer there.
    pub(crate) fn retire_removed_rules(&mut self) -> Changes {
        let removed: Vec<String> = self.open.keys().filter(|r| !self.rules.contains_key(*r)).cloned().collect();
        let at_ms = self.business_time_ms();
        let mut round = Round::default();
        for rule in removed {
            for (_, open) in self.open.remove(&rule).unwrap_or_default() {
                round.resolve(open.alert, at_ms, None, Reason::RuleRemoved);
            }
            self.pending.retain(|(r, _)| *r != rule);
        }
        self.finish(vec![round], BTreeMap::new())
    }

    /// Takes in epochs, in any order of the rules, each rule's own in order. Events come out epoch by epoch and, within
    /// an epoch, by priority, highest first.
    pub(crate) fn apply(&mut self, mut epochs: Vec<RuleEpoch>) -> Changes {
        epochs.sort_by_key(|e| e.epoch);
        let mut rounds: Vec<Round> = Vec::new();
        let mut last_epoch = None;
        let mut progress = BTreeMap::new();
        for epoch in epochs {
            if last_epoch != Some(epoch.epoch) || rounds.is_empty() {
                rounds.push(Round::default());
                last_epoch = Some(epoch.epoch);
            }
            let at = Progress { next_offset: epoch.next_offset, as_of_ms: epoch.as_of_ms };
            progress.insert(epoch.rule.clone(), at);
            self.progress.insert(epoch.rule.clone(), at);
            let Some(rule) = self.rules.get(&epoch.rule).cloned() else { continue };
            if let Some(round) = rounds.last_mut() {
                for Change { key, row } in epoch.changes {
                    match row {
                        Some(row) => self.put(&rule, key, row, epoch.as_of_ms, epoch.epoch, round),
                        None => self.remove(&rule, &key, epoch.as_of_ms, Some(epoch.epoch), Reason::RowLeft, round),
                    }
                }
            }
        }
        self.finish(rounds, progress)
    }

    /// Compares a rule's open alerts to the rows its topic holds, once at the start: after this the two agree, whatever
    /// happened in between.
    pub(crate) fn reconcile(&mut self, rule: &str, rows: HashMap<Key, SnapshotRow>) -> Changes {
        let Some(rule) = self.rules.get(rule).cloned() else { return Changes::default() };
        let mut round = Round::default();
        let at_ms = self.business_time_ms();
        let gone: Vec<Key> = self
            .open
            .get(&rule.name)
            .map(|open| open.keys().filter(|k| !rows.contains_key(*k)).cloned().collect())
            .unwrap_or_default();
        for key in gone {
            self.remove(&rule, &key, at_ms, None, Reason::RowGoneAtStart, &mut round);
        }
        for (key, SnapshotRow { row, as_of_ms, epoch }) in rows {
            self.put(&rule, key, row, as_of_ms, epoch, &mut round);
        }
        self.finish(vec![round], BTreeMap::new())
    }

    /// Events for firing alerts that changed and were not told again for [`UPDATE_INTERVAL_MS`].
    pub(crate) fn tell_updates(&mut self) -> Changes {
        let now_ms = self.now_ms();
        let mut round = Round::default();
        let Self { pending, open, .. } = self;
        pending.retain(|(rule, key)| {
            let Some(open) = open.get_mut(rule).and_then(|o| o.get_mut(key)) else { return false };
            if now_ms < open.told_at_ms.saturating_add(UPDATE_INTERVAL_MS) {
                return true;
            }
            open.told_at_ms = now_ms;
            open.alert.is_update_pending = false;
            round.alerts.insert(open.alert.alert_id, open.alert.clone());
            let at_ms = self.progress.get(rule).map_or(open.alert.fired_at_ms, |p| p.as_of_ms);
            round.events.push((open.alert.clone(), at_ms.max(open.alert.fired_at_ms)));
            false
        });
        self.finish(vec![round], BTreeMap::new())
    }

    /// A row is there: a new alert, or news of one.
    fn put(&mut self, rule: &Rule, key: Key, row: Map<String, Value>, as_of_ms: i64, epoch: u64, round: &mut Round) {
        let now_ms = self.now_ms();
        let open = self.open.entry(rule.name.clone()).or_default();
        let n_open = open.len();
        match open.get_mut(&key) {
            Some(Open { alert, .. }) => {
                let facts = facts_of(rule, &key, &row);
                let is_news = facts != Facts::of(alert);
                if !is_news && alert.row == row && alert.owner == rule.owner {
                    return;
                }
                facts.write_to(alert);
                alert.row = row;
                alert.owner.clone_from(&rule.owner);
                alert.epoch = epoch;
                alert.is_update_pending |= is_news;
                if is_news {
                    self.pending.insert((rule.name.clone(), key));
                }
                round.alerts.insert(alert.alert_id, alert.clone());
            }
            None if n_open >= OPEN_ALERTS_PER_RULE_MAX => {
                rule_error(&rule.name, "too_many_rows");
                if n_open == OPEN_ALERTS_PER_RULE_MAX {
                    warn!(rule = rule.name, max = OPEN_ALERTS_PER_RULE_MAX, "rule has too many rows, ignored the rest");
                }
            }
            None => {
                let Facts { severity, title, impact, priority } = facts_of(rule, &key, &row);
                let alert = Alert {
                    alert_id: Uuid::now_v7(),
                    rule: Arc::from(rule.name.as_str()),
                    key: Arc::clone(&key),
                    severity,
                    owner: rule.owner.clone(),
                    state: State::Firing,
                    title,
                    row,
                    impact,
                    priority,
                    fired_at_ms: as_of_ms,
                    resolved_at_ms: None,
                    reason: None,
                    epoch,
                    is_update_pending: false,
                };
                round.alerts.insert(alert.alert_id, alert.clone());
                round.events.push((alert.clone(), as_of_ms));
                open.insert(key, Open { alert, told_at_ms: now_ms });
            }
        }
    }

    fn remove(&mut self, rule: &Rule, key: &Key, at_ms: i64, epoch: Option<u64>, reason: Reason, round: &mut Round) {
        if let Some(open) = self.open.get_mut(&rule.name).and_then(|o| o.remove(key)) {
            self.pending.remove(&(rule.name.clone(), Arc::clone(key)));
            round.resolve(open.alert, at_ms, epoch, reason);
        }
    }

    /// Numbers the events of each round by priority and puts the rounds together.
    fn finish(&mut self, rounds: Vec<Round>, progress: BTreeMap<String, Progress>) -> Changes {
        let mut changes = Changes { progress, ..Changes::default() };
        for mut round in rounds {
            round.events.sort_by(|(a, _), (b, _)| {
                b.priority.total_cmp(&a.priority).then_with(|| (&a.rule, &a.key).cmp(&(&b.rule, &b.key)))
            });
            for (alert, at_ms) in round.events {
                self.last_seq += 1;
                counter!("alert_events_total", "rule" => alert.rule.to_string(), "state" => alert.state.as_str())
                    .increment(1);
                changes.events.push(alert.to_event(self.last_seq, at_ms));
            }
            changes.alerts.extend(round.alerts);
        }
        if !changes.events.is_empty() {
            self.show_metrics();
        }
        changes
    }

    fn show_metrics(&self) {
        for severity in Severity::ALL {
            let n_firing =
                self.open.values().flat_map(BTreeMap::values).filter(|o| o.alert.severity == severity).count();
            #[expect(clippy::cast_precision_loss, reason = "a count for a gauge")]
            gauge!("alerts_firing", "severity" => severity.as_str()).set(n_firing as f64);
        }
    }

    fn now_ms(&self) -> i64 {
        self.clock.now_us() / 1_000
    }

    /// The latest business time heard of; the clock before any.
    fn business_time_ms(&self) -> i64 {
        self.progress.values().map(|p| p.as_of_ms).max().unwrap_or_else(|| self.now_ms())
    }
}

/// What happens at one moment, before the events have their order.
#[derive(Default)]
struct Round {
    alerts: HashMap<Uuid, Alert>,
    events: Vec<(Alert, i64)>,
}

impl Round {
    fn resolve(&mut self, mut alert: Alert, at_ms: i64, epoch: Option<u64>, reason: Reason) {
        alert.state = State::Resolved;
        alert.resolved_at_ms = Some(at_ms.max(alert.fired_at_ms));
        alert.reason = Some(reason);
        alert.epoch = epoch.unwrap_or(alert.epoch);
        alert.is_update_pending = false;
        self.alerts.insert(alert.alert_id, alert.clone());
        let at_ms = at_ms.max(alert.fired_at_ms);
        self.events.push((alert, at_ms));
    }
}

impl Facts {
    fn of(alert: &Alert) -> Self {
        let Alert { severity, title, impact, priority, .. } = alert;
        Self { severity: *severity, title: title.clone(), impact: impact.clone(), priority: *priority }
    }

    fn write_to(self, alert: &mut Alert) {
        let Self { severity, title, impact, priority } = self;
        alert.severity = severity;
        alert.title = title;
        alert.impact = impact;
        alert.priority = priority;
    }
}

/// A title or impact that fails costs the title or the impact, not the alert.
fn facts_of(rule: &Rule, key: &str, row: &Map<String, Value>) -> Facts {
    let title = rule.title.render(row).unwrap_or_else(|error| {
        rule_error(&rule.name, "title");
        warn!(rule = rule.name, key, %error, "title does not render");
        format!("{}: {key}", rule.name)
    });
    let impact = rule.impact.as_ref().and_then(|column| match row.get(column) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    });
    let size: Option<f64> = impact.as_ref().and_then(|text| text.parse().ok());
    if impact.is_some() && size.is_none() {
        rule_error(&rule.name, "impact");
        warn!(rule = rule.name, key, "impact is not a number");
    }
    let impact = impact.filter(|_| size.is_some());
    Facts { severity: rule.severity, title, impact, priority: priority(rule.severity, size) }
}

/// Counts an error of one rule.
pub(crate) fn rule_error(rule: &str, reason: &'static str) {
    counter!("alert_rule_errors_total", "rule" => rule.to_owned(), "reason" => reason).increment(1);
}
