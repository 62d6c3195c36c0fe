//! The hub: every channel with its content, fed from the log by [`tail`] and read by sessions and REST routes.
//!
//! - [`channel`]: content, position and subscribers under one lock;
//! - [`stream`]: position and history;
//! - [`view`], [`alerts`], [`status`]: the three kinds of content; [`lens`]: filtered views of it;
//! - [`tail`]: from log records to content; [`pacer`]: held-back updates of tiles;
//! - [`topics`]: channels without content of ours, where clients and servers publish.

pub(crate) mod alerts;
pub(crate) mod channel;
pub(crate) mod lens;
pub(crate) mod pacer;
#[cfg(test)]
mod property;
pub(crate) mod status;
pub(crate) mod stream;
pub(crate) mod tail;
pub(crate) mod topics;
pub(crate) mod view;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use model::view::EngineStatus;

use crate::config::LimitsConfig;
use crate::hub::alerts::Alerts;
use crate::hub::channel::{Channel, Content, Subscribable};
use crate::hub::pacer::Pacer;
use crate::hub::status::Status;
use crate::hub::topics::Topics;
use crate::hub::view::View;
use crate::live::LiveConfig;
use crate::protocol::ErrorCode;

/// Prefix of the channels of views.
pub(crate) const VIEW_CHANNEL_PREFIX: &str = "view:";
/// Channel of the alerts.
pub(crate) const ALERTS_CHANNEL: &str = "alerts";
/// Channel of the engine's reports.
pub(crate) const STATUS_CHANNEL: &str = "status";
/// Views that are held; topics of further ones are left out, with a warning.
const VIEWS_MAX: usize = 10_000;
/// An engine that has not reported for so long is not there: it reports about once a second.
const ENGINE_SILENCE_MS_MAX: i64 = 15_000;

/// All channels of this server.
pub(crate) struct Hub {
    limits: LimitsConfig,
    views: RwLock<BTreeMap<Arc<str>, Arc<Channel<View>>>>,
    topics: Topics,
    pacer: Pacer,
    tile_interval: Duration,
    alerts: Arc<Channel<Alerts>>,
    status: Arc<Channel<Status>>,
    /// The engine's last report of its dataflow graph, as JSON.
    graph: ArcSwapOption<Bytes>,
    /// Whether everything that was in the log at the start has been read.
    is_loaded: AtomicBool,
}

impl Hub {
    pub(crate) fn new(limits: &LimitsConfig, live: &LiveConfig) -> Self {
        Self {
            limits: limits.clone(),
            views: RwLock::default(),
            topics: Topics::new(&live.namespaces),
            pacer: Pacer::default(),
            tile_interval: live.tile_interval(),
            alerts: Arc::new(Channel::new(ALERTS_CHANNEL, Alerts::default(), limits, Duration::ZERO)),
            status: Arc::new(Channel::new(STATUS_CHANNEL, Status::default(), limits, Duration::ZERO)),
            graph: ArcSwapOption::empty(),
            is_loaded: AtomicBool::new(false),
        }
    }

    /// The channel of that name, if it is one of ours and not a topic.
    ///
    /// # Errors
    /// [`ErrorCode::UNKNOWN_CHANNEL`], or [`ErrorCode::NOT_YET`] while it may still turn up.
    pub(crate) fn find(&self, channel: &str) -> Result<Arc<dyn Subscribable>, ErrorCode> {
        if !self.is_loaded() {
            return Err(ErrorCode::NOT_YET);
        }
        match channel {
            ALERTS_CHANNEL => Ok(Arc::clone(&self.alerts) as Arc<dyn Subscribable>),
            STATUS_CHANNEL => Ok(Arc::clone(&self.status) as Arc<dyn Subscribable>),
            _ => {
                let name = channel.strip_prefix(VIEW_CHANNEL_PREFIX).ok_or(ErrorCode::UNKNOWN_CHANNEL)?;
                match self.view(name) {
                    Some(view) => Ok(view as Arc<dyn Subscribable>),
                    None if self.engine_is_live() => Err(ErrorCode::UNKNOWN_CHANNEL),
                    None => Err(ErrorCode::NOT_YET),
                }
            }
        }
    }

    /// Channels where clients and servers publish.
    pub(crate) fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Names of the channels with subscribers at this node, and how many.
    pub(crate) fn channels(&self) -> Vec<(String, usize)> {
        let mut channels = self.topics.channels();
        channels.extend(self.views().iter().map(|view| (view.name().to_owned(), view.n_subscribers())));
        channels.push((ALERTS_CHANNEL.to_owned(), self.alerts.n_subscribers()));
        channels.push((STATUS_CHANNEL.to_owned(), self.status.n_subscribers()));
        channels.retain(|(_, n)| *n > 0);
        channels
    }

    /// Where held-back updates wait.
    pub(crate) fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// A view that the catalog names.
    pub(crate) fn view(&self, name: &str) -> Option<Arc<Channel<View>>> {
        let views = self.views.read().unwrap_or_else(PoisonError::into_inner);
        views.get(name).filter(|view| view.read(|view, _, _| view.exists())).cloned()
    }

    /// All views that the catalog names, by name.
    pub(crate) fn views(&self) -> Vec<Arc<Channel<View>>> {
        let views = self.views.read().unwrap_or_else(PoisonError::into_inner);
        views.values().filter(|view| view.read(|view, _, _| view.exists())).cloned().collect()
    }

    pub(crate) fn alerts(&self) -> &Channel<Alerts> {
        &self.alerts
    }

    pub(crate) fn status(&self) -> &Channel<Status> {
        &self.status
    }

    /// The engine's last report of its dataflow graph, as JSON; `None` if it has made none.
    pub(crate) fn graph(&self) -> Option<Bytes> {
        self.graph.load().as_deref().cloned()
    }

    fn set_graph(&self, json: Bytes) {
        self.graph.store(Some(Arc::new(json)));
    }

    /// The channel of a view whether or not the catalog names it yet; `None` beyond [`VIEWS_MAX`].
    fn view_or_new(&self, name: &str) -> Option<Arc<Channel<View>>> {
        let mut views = self.views.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = views.get(name) {
            return Some(Arc::clone(view));
        }
        if views.len() >= VIEWS_MAX {
            tracing::warn!(view = name, limit = VIEWS_MAX, "left out a view: there are too many");
            return None;
        }
        let channel = format!("{VIEW_CHANNEL_PREFIX}{name}");
        let view = Arc::new(Channel::new(&channel, View::default(), &self.limits, self.tile_interval));
        views.insert(Arc::from(name), Arc::clone(&view));
        Some(view)
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Acquire)
    }

    pub(crate) fn set_loaded(&self) {
        self.is_loaded.store(true, Ordering::Release);
    }

    fn engine_is_live(&self) -> bool {
        self.status.read(|status, _, _| status.last().is_some_and(is_live))
    }

    /// Why this server is not ready to answer in full; empty if it is.
    pub(crate) fn unreadiness(&self, now_ms: i64) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.is_loaded() {
            reasons.push("the catalog and the views are still being read from the log".to_owned());
        }
        self.status.read(|status, _, _| match status.last() {
            None => reasons.push("the engine has not reported yet".to_owned()),
            Some(last) => {
                if !is_live(last) {
                    let lag = last.lag_records.map_or(String::new(), |n| format!(": {n} records to go"));
                    reasons.push(format!("the engine is catching up with its sources{lag}"));
                }
                let silence_ms = now_ms - last.written_at_ms;
                if silence_ms > ENGINE_SILENCE_MS_MAX {
                    reasons.push(format!("the engine has not reported for {} s", silence_ms / 1000));
                }
            }
        });
        reasons
    }
}

/// Whether a channel shows content of ours; all others are topics.
pub(crate) fn is_built_in(channel: &str) -> bool {
    channel == ALERTS_CHANNEL || channel == STATUS_CHANNEL || channel.starts_with(VIEW_CHANNEL_PREFIX)
}

fn is_live(status: &EngineStatus) -> bool {
    status.phase == "live"
}
