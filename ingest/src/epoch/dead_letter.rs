//! Records that could not be used, kept whole, with where they came from and why.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{AppendRecord, Log, LogError, Record, topics};

use crate::decode::Undecodable;

/// First and longest pause before a dead letter is written again while the log is away.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(10);

/// A record with its reason.
#[derive(Debug)]
pub(super) struct DeadLetter {
    pub(super) table: Arc<str>,
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) record: Record,
    pub(super) reason: Undecodable,
}

impl DeadLetter {
    fn to_record(&self) -> AppendRecord {
        let text = |name: &str, value: String| (Arc::from(name), Bytes::from(value));
        let mut headers = vec![
            text("topic", self.topic.to_string()),
            text("partition", self.partition.to_string()),
            text("offset", self.record.offset.to_string()),
            text("timestamp", self.record.timestamp_ms.to_string()),
            text("table", self.table.to_string()),
            text("reason", self.reason.to_string()),
            text("reason-class", self.reason.class().to_owned()),
        ];
        headers.extend(self.record.headers.iter().cloned());
        AppendRecord {
            topic: Arc::from(topics::DEAD_LETTER),
            partition: None,
            timestamp_ms: None,
            key: self.record.key.clone(),
            value: self.record.value.clone(),
            headers,
        }
    }
}

/// Writes dead letters, waiting as long as the log is away: the epoch they belong to is handed out only after.
pub(super) async fn write(log: &dyn Log, letters: &[DeadLetter]) -> Result<(), LogError> {
    if letters.is_empty() {
        return Ok(());
    }
    let records: Vec<AppendRecord> = letters.iter().map(DeadLetter::to_record).collect();
    match append(log, records.clone()).await {
        Err(LogError::TooLarge { .. }) => {}
        other => return other,
    }
    // One of them is too large for the log: write them one by one, that one without its value.
    for mut record in records {
        if let Err(LogError::TooLarge { bytes, .. }) = append(log, vec![record.clone()]).await {
            record.value = None;
            record.headers.push((Arc::from("value-left-out-bytes"), Bytes::from(bytes.to_string())));
            if let Err(error) = append(log, vec![record]).await {
                tracing::error!(%error, "dead letter could not be kept");
            }
        }
    }
    Ok(())
}

async fn append(log: &dyn Log, records: Vec<AppendRecord>) -> Result<(), LogError> {
    let mut pause = RETRY_FIRST;
    loop {
        match log.append(records.clone()).await {
            Ok(_) => return Ok(()),
            Err(LogError::Unavailable { reason }) => {
                tracing::warn!(reason, pause_ms = pause.as_millis() as u64, "dead letters wait for the log");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_LONGEST);
            }
            Err(other) => return Err(other),
        }
    }
}
