//! The figures as a table.

use std::fmt;

use crate::events::Floor;
use crate::process::Cost;
use crate::results::Compared;

/// What stands in place of a figure of an engine that was not asked for.
const NOT_RUN: &str = "not run";

/// One query on both engines.
#[derive(Debug)]
pub(crate) struct Line {
    name: String,
    events: u64,
    pub(crate) andon: Result<Cost, String>,
    pub(crate) flink: Result<Cost, String>,
    pub(crate) compared: Option<Result<Compared, String>>,
}

impl Line {
    pub(crate) fn new(name: &str, events: u64) -> Self {
        let none = || Err(NOT_RUN.to_owned());
        Self { name: name.to_owned(), events, andon: none(), flink: none(), compared: None }
    }

    /// Thousand events per CPU-second.
    fn rate(&self, cost: &Cost) -> f64 {
        self.events as f64 / 1_000.0 / cost.cpu_seconds.max(0.01)
    }

    fn side(&self, cost: &Result<Cost, String>) -> String {
        match cost {
            Ok(c) => format!(
                "{:.0} k/CPU-s ({:.1} s, {:.1} CPU-s, {:.0} MB)",
                self.rate(c),
                c.seconds,
                c.cpu_seconds,
                c.peak_mb
            ),
            Err(error) => error.clone(),
        }
    }

    /// Whether the results are the same, in words.
    pub(crate) fn verdict(&self) -> String {
        match &self.compared {
            None => match (failure(&self.andon), failure(&self.flink)) {
                (None, None) => "–".to_owned(),
                (Some(error), _) => format!("FAILED on Andon: {}", one_line(error)),
                (None, Some(error)) => format!("FAILED on Flink: {}", one_line(error)),
            },
            Some(Err(error)) => format!("NOT COMPARED: {}", one_line(error)),
            Some(Ok(c)) if c.same => format!("{} rows, same", c.rows),
            Some(Ok(c)) => format!("DIFFERENT: {}", one_line(&c.difference)),
        }
    }

    /// Whether every engine that was asked did its work, and both results, where there are two, are the same.
    fn is_good(&self) -> bool {
        let compared = match &self.compared {
            None => true,
            Some(result) => result.as_ref().is_ok_and(|c| c.same),
        };
        compared && failure(&self.andon).is_none() && failure(&self.flink).is_none()
    }
}

/// Why an engine that was asked gave nothing.
fn failure(cost: &Result<Cost, String>) -> Option<&str> {
    cost.as_ref().err().map(String::as_str).filter(|error| *error != NOT_RUN)
}

/// As a cell of a table takes it.
fn one_line(text: &str) -> String {
    text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Andon {}; Flink {}", self.side(&self.andon), self.side(&self.flink))
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) floor: Option<Floor>,
    pub(crate) lines: Vec<Line>,
    flink_start_seconds: Option<f64>,
}

impl Report {
    pub(crate) fn new(flink_start_seconds: Option<f64>) -> Self {
        Self { floor: None, lines: Vec::new(), flink_start_seconds }
    }

    /// Whether there are results, no engine failed, and no result differs.
    pub(crate) fn all_good(&self) -> bool {
        !self.lines.is_empty() && self.lines.iter().all(Line::is_good)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(floor) = &self.floor {
            writeln!(
                f,
                "Floor, thousand events per CPU-second: reading the topic {:.0}, reading and decoding it {:.0}\n",
                floor.read, floor.decoded
            )?;
        }
        let cell = |cost: &Result<Cost, String>, show: &dyn Fn(&Cost) -> String| {
            cost.as_ref().map_or_else(|_| "–".to_owned(), show)
        };
        if let Some(seconds) = self.flink_start_seconds {
            let ours =
                self.lines.iter().filter_map(|l| l.andon.as_ref().ok()).map(|c| c.start_seconds).fold(0.0, f64::max);
            writeln!(
                f,
                "Start-up: Andon {ours:.1} s at most until it reads; Flink's cluster {seconds:.1} s, then a job's submission\n"
            )?;
        }
        writeln!(
            f,
            "| query | Andon, k events/CPU-s | Flink | ratio | Andon, MB | Flink, MB | ratio | Flink's submission, s | result |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|")?;
        for line in &self.lines {
            let ratio = |show: &dyn Fn(&Cost) -> f64| match (&line.andon, &line.flink) {
                (Ok(a), Ok(b)) => format!("{:.1}", show(a) / show(b)),
                _ => "–".to_owned(),
            };
            let rate = |c: &Cost| format!("{:.0}", line.rate(c));
            let memory = |c: &Cost| format!("{:.0}", c.peak_mb);
            let start = |c: &Cost| format!("{:.1}", c.start_seconds);
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                line.name,
                cell(&line.andon, &rate),
                cell(&line.flink, &rate),
                ratio(&|c| 1.0 / c.cpu_seconds.max(0.01)),
                cell(&line.andon, &memory),
                cell(&line.flink, &memory),
                ratio(&|c| c.peak_mb),
                cell(&line.flink, &start),
                line.verdict(),
            )?;
        }
        Ok(())
    }
}
