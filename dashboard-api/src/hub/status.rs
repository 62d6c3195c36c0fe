//! The content of the channel `status`: what the engine last said of itself.

use bytes::Bytes;
use model::view::EngineStatus;

use crate::hub::channel::{Content, Effect};
use crate::hub::lens::{Lens, LensSpec};
use crate::protocol::ErrorCode;
use crate::protocol::payload::one_line;

/// The engine's last report, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Status {
    last: Option<(EngineStatus, Bytes)>,
}

impl Status {
    /// Takes over a report.
    ///
    /// # Errors
    /// What is wrong with it; then nothing has changed.
    pub(crate) fn apply(&mut self, report: &[u8], publish: bool) -> Result<Effect<Bytes>, serde_json::Error> {
        let parsed: EngineStatus = serde_json::from_slice(report)?;
        let json = one_line(&Bytes::copy_from_slice(report));
        self.last = Some((parsed, json.clone()));
        Ok(if publish { Effect::Publish { change: json, at: None } } else { Effect::Silent { at: None } })
    }

    /// The engine's last report.
    pub(crate) fn last(&self) -> Option<&EngineStatus> {
        self.last.as_ref().map(|(status, _)| status)
    }
}

impl Content for Status {
    type Change = Bytes;

    fn exists(&self) -> bool {
        true
    }

    fn epoch(&self) -> Option<String> {
        None
    }

    fn snapshot_bytes(&self) -> usize {
        self.last.as_ref().map_or(4, |(_, json)| json.len())
    }

    fn write_snapshot(&self, _: Option<&Lens>, out: &mut Vec<u8>) {
        out.extend_from_slice(self.last.as_ref().map_or(b"null", |(_, json)| json));
    }

    fn render(&self, change: &Bytes, _: Option<&Lens>) -> Option<Vec<u8>> {
        Some(change.to_vec())
    }

    fn change_since(&self, _: u64) -> Option<Bytes> {
        None
    }

    fn merge(&self, _: Bytes, later: Bytes) -> Bytes {
        later
    }

    fn lens(&self, _: &LensSpec) -> Result<Lens, ErrorCode> {
        Err(ErrorCode::BAD_REQUEST)
    }
}
