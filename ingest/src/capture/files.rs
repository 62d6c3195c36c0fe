//! The files of a capture, and one reader per partition over its own lines.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use super::line::{Line, place};
use super::position;
use super::{CaptureError, CaptureRecord, CapturedPartition};

/// A line may have so many bytes; a longer one is an error, not a reason to fill the memory.
const LINE_BYTES_MAX: u64 = 64 << 20;
const BUFFER_BYTES: usize = 64 << 10;

/// One partition's lines.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) summary: CapturedPartition,
    /// In the order of their offsets; as a rule one file.
    parts: Vec<Part>,
}

/// A partition's lines within one file.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    first_offset: i64,
    end_offset: i64,
    /// Consecutive lines, as first line from 0 and count.
    runs: Vec<(u64, u64)>,
}

/// Finds the files and looks through them for the partitions.
pub(super) fn scan(dir: &Path) -> Result<Vec<Arc<Stream>>, CaptureError> {
    let mut streams: BTreeMap<(Arc<str>, i32), Vec<Part>> = BTreeMap::new();
    for path in find(dir)? {
        for (place, part) in scan_file(&path)? {
            streams.entry(place).or_default().push(part);
        }
    }
    let stream = |((topic, partition), mut parts): ((Arc<str>, i32), Vec<Part>)| {
        parts.sort_by_key(|part| part.first_offset);
        for pair in parts.windows(2) {
            if pair[1].first_offset < pair[0].end_offset {
                let reason = format!("topic {topic} partition {partition} is also in {}", pair[0].path.display());
                let line = pair[1].runs.first().map_or(1, |(first, _)| first + 1);
                return Err(CaptureError::Malformed { path: pair[1].path.clone(), line, reason });
            }
        }
        let n_records = parts.iter().flat_map(|part| &part.runs).map(|(_, count)| count).sum();
        let first_offset = parts.first().map_or(0, |part| part.first_offset);
        let end_offset = parts.last().map_or(0, |part| part.end_offset);
        let summary = CapturedPartition { topic, partition, first_offset, end_offset, n_records };
        Ok(Arc::new(Stream { summary, parts }))
    };
    streams.into_iter().map(stream).collect()
}

fn find(dir: &Path) -> Result<Vec<PathBuf>, CaptureError> {
    let mut found = Vec::new();
    for folder in [dir.to_owned(), dir.join("topics")] {
        if folder != dir && !folder.is_dir() {
            continue;
        }
        let io = |source| CaptureError::Io { path: folder.clone(), source };
        for entry in std::fs::read_dir(&folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_file() && (name.ends_with(".ndjson") || name.ends_with(".ndjson.gz")) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn scan_file(path: &Path) -> Result<BTreeMap<(Arc<str>, i32), Part>, CaptureError> {
    let mut parts: BTreeMap<(Arc<str>, i32), Part> = BTreeMap::new();
    let mut names: Vec<Arc<str>> = Vec::new();
    let mut lines = Lines::open(path)?;
    let mut text = Vec::new();
    while lines.next(&mut text)? {
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let number = lines.number - 1;
        let line = std::str::from_utf8(&text).map_err(|_| lines.malformed("not UTF-8"))?;
        let place = place(line).map_err(|e| lines.malformed(e))?;
        // As a rule the topic is that of the line before.
        let topic = match names.iter().rev().find(|name| ***name == *place.topic) {
            Some(name) => Arc::clone(name),
            None => {
                names.push(Arc::from(&*place.topic));
                Arc::clone(&names[names.len() - 1])
            }
        };
        let part = parts.entry((topic, place.partition)).or_insert_with(|| {
            let first_offset = place.offset.unwrap_or(0);
            Part { path: path.to_owned(), first_offset, end_offset: first_offset, runs: Vec::new() }
        });
        let offset = place.offset.unwrap_or(part.end_offset);
        if offset < part.end_offset {
            let reason = format!("offset {offset} after {}: a partition's offsets must grow", part.end_offset - 1);
            return Err(lines.malformed(reason));
        }
        part.end_offset = offset + 1;
        match part.runs.last_mut() {
            Some((first, count)) if *first + *count == number => *count += 1,
            _ => part.runs.push((number, 1)),
        }
    }
    Ok(parts)
}

/// Reads a file line by line, counting.
struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    /// Lines read so far, which is the number of the last one, from 1.
    number: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, CaptureError> {
        let file = File::open(path).map_err(|source| CaptureError::Io { path: path.to_owned(), source })?;
        let reader: Box<dyn BufRead + Send> = if path.extension().is_some_and(|extension| extension == "gz") {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(file)))
        } else {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, file))
        };
        Ok(Self { path: path.to_owned(), reader, number: 0 })
    }

    /// Reads the next line without its end; false at the end of the file.
    fn next(&mut self, text: &mut Vec<u8>) -> Result<bool, CaptureError> {
        text.clear();
        let mut limited = std::io::Read::take(&mut self.reader, LINE_BYTES_MAX);
        let n_read = limited.read_until(b'\n', text);
        let n_read = n_read.map_err(|source| CaptureError::Io { path: self.path.clone(), source })?;
        self.number += 1;
        if text.last() == Some(&b'\n') {
            text.pop();
        } else if n_read as u64 == LINE_BYTES_MAX {
            return Err(self.malformed(format!("longer than {LINE_BYTES_MAX} bytes")));
        }
        Ok(n_read > 0)
    }

    /// Passes over lines without keeping them.
    fn skip(&mut self, count: u64) -> Result<(), CaptureError> {
        for _ in 0..count {
            let skipped = self.reader.skip_until(b'\n');
            skipped.map_err(|source| CaptureError::Io { path: self.path.clone(), source })?;
        }
        self.number += count;
        Ok(())
    }

    fn malformed(&self, reason: impl ToString) -> CaptureError {
        CaptureError::Malformed { path: self.path.clone(), line: self.number, reason: reason.to_string() }
    }
}

/// Reads one partition's records in offset order.
pub(super) struct StreamReader {
    stream: Arc<Stream>,
    /// Records from this offset on are left out.
    end: i64,
    part: usize,
    run: usize,
    /// Lines of the current run that are left.
    left: u64,
    lines: Option<Lines>,
    next_offset: i64,
    text: Vec<u8>,
}

impl StreamReader {
    pub(super) fn open(stream: Arc<Stream>, end: Option<i64>) -> Result<Self, CaptureError> {
        let (end, next_offset) = (end.unwrap_or(i64::MAX), stream.summary.first_offset);
        Ok(Self { stream, end, part: 0, run: 0, left: 0, lines: None, next_offset, text: Vec::new() })
    }

    /// The next record, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<CaptureRecord>, CaptureError> {
        loop {
            let Some(part) = self.stream.parts.get(self.part) else {
                return Ok(None);
            };
            let lines = match &mut self.lines {
                Some(lines) => lines,
                None => self.lines.insert(Lines::open(&part.path)?),
            };
            if self.left == 0 {
                let Some((first, count)) = part.runs.get(self.run) else {
                    (self.part, self.run, self.lines) = (self.part + 1, 0, None);
                    continue;
                };
                lines.skip(first - lines.number)?;
                (self.run, self.left) = (self.run + 1, *count);
            }
            if !lines.next(&mut self.text)? {
                return Err(lines.malformed("the file has become shorter"));
            }
            self.left -= 1;
            let record =
                parse(&mut self.text, &self.stream.summary, self.next_offset).map_err(|e| lines.malformed(e))?;
            if record.offset >= self.end {
                self.part = usize::MAX;
                return Ok(None);
            }
            self.next_offset = record.offset + 1;
            return Ok(Some(record));
        }
    }
}

/// Makes a record of a line. Key and value are slices of the line, which is not copied.
fn parse(text: &mut Vec<u8>, place: &CapturedPartition, next_offset: i64) -> Result<CaptureRecord, String> {
    // The next line is about as long as this one.
    let room = Vec::with_capacity(text.len() + text.len() / 4);
    let buffer = Bytes::from(std::mem::replace(text, room));
    let line: Line<'_> = serde_json::from_slice(&buffer).map_err(|e| e.to_string())?;
    if *line.topic != *place.topic || line.partition != place.partition {
        return Err("the file has changed since it was opened".to_owned());
    }
    let slice = |raw: &serde_json::value::RawValue| buffer.slice_ref(raw.get().as_bytes());
    let value = line.value.map(slice);
    let (position, event_ms) = value.as_deref().map_or((None, None), position::of);
    Ok(CaptureRecord {
        topic: Arc::clone(&place.topic),
        partition: place.partition,
        offset: line.offset.unwrap_or(next_offset),
        timestamp_ms: line.timestamp.or(event_ms).unwrap_or(0),
        key: line.key.map(slice),
        value,
        position,
    })
}
