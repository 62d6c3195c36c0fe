//! Reads captures until `ingest::capture` is there.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use model::{AppendRecord, Log, Offsets};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::Error;

#[derive(Deserialize)]
struct Line<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp: i64,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let dir = if dir.join("topics").is_dir() { dir.join("topics") } else { dir.to_owned() };
    let mut out: Vec<_> = std::fs::read_dir(&dir)
        .map_err(Error::file("read", &dir))?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.to_string_lossy().contains(".ndjson"))
        .collect();
    out.sort();
    Ok(out)
}

pub(crate) async fn copy(
    dir: &Path,
    log: Arc<dyn Log>,
    upto: Option<Offsets>,
    _stop: CancellationToken,
) -> Result<Offsets, Error> {
    let mut end = Offsets::default();
    for path in files(dir)? {
        let file = std::fs::File::open(&path).map_err(Error::file("read", &path))?;
        let reader: Box<dyn Read + Send> = if path.extension().is_some_and(|e| e == "gz") {
            Box::new(flate2::read::MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let mut reader = BufReader::with_capacity(1 << 20, reader);
        let mut line = String::new();
        let mut batch = Vec::new();
        loop {
            line.clear();
            let n = reader.read_line(&mut line).map_err(Error::file("read", &path))?;
            if n > 0 {
                let l: Line<'_> = serde_json::from_str(&line)
                    .map_err(|e| Error::Content { path: path.clone(), reason: e.to_string() })?;
                if upto.as_ref().is_some_and(|u| u.get(l.topic, l.partition).is_none_or(|end| l.offset >= end)) {
                    continue;
                }
                let raw = |v: &RawValue| Bytes::copy_from_slice(v.get().as_bytes());
                batch.push(AppendRecord {
                    topic: Arc::from(l.topic),
                    partition: Some(l.partition),
                    timestamp_ms: Some(l.timestamp),
                    key: l.key.map(raw),
                    value: l.value.map(raw),
                    headers: Vec::new(),
                });
            }
            if (n == 0 && !batch.is_empty()) || batch.len() >= 5000 {
                let places: Vec<_> =
                    batch.iter().map(|r: &AppendRecord| (r.topic.clone(), r.partition.unwrap_or(0))).collect();
                let offsets = log.append(std::mem::take(&mut batch)).await?;
                for ((t, p), o) in places.iter().zip(offsets) {
                    end.set(t, *p, o + 1);
                }
            }
            if n == 0 {
                break;
            }
        }
    }
    Ok(end)
}
