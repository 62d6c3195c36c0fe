//! From SQL files to a planned program, with every message of every file at once.

use std::path::Path;

use alerting::Rule;
use model::{Offsets, SourceTable, SqlFile, TopicSelector};
use pipelines::{Program, RuleQuery};
use regex::Regex;

use crate::config::Config;
use crate::{Error, shipped};

/// The SQL files of one program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SqlSet {
    /// DDL and mapping views of the source pack.
    pub source: Vec<SqlFile>,
    /// Kept views.
    pub views: Vec<SqlFile>,
    /// Alert rules.
    pub rules: Vec<SqlFile>,
    /// Among how many shards operators share their keys; one if 0.
    pub n_shards: usize,
}

/// What a [`SqlSet`] becomes.
#[derive(Debug)]
pub struct Planned {
    /// The source tables, for the ingest stage.
    pub tables: Vec<SourceTable>,
    /// The alert rules, for the alerting stage.
    pub rules: Vec<Rule>,
    /// The views and rules, for the engine.
    pub program: Program,
}

impl Planned {
    /// The topics that some table reads.
    ///
    /// # Errors
    /// If a `topic-pattern` is no regular expression.
    pub fn source_topics(&self) -> Result<SourceTopics, Error> {
        let patterns: Vec<_> = self
            .tables
            .iter()
            .map(|table| match &table.topic {
                TopicSelector::Name(name) => regex::escape(name),
                TopicSelector::Pattern(pattern) => pattern.clone(),
            })
            .collect();
        let whole = format!("^(?:{})$", patterns.join("|"));
        Regex::new(&whole).map(SourceTopics).map_err(|e| Error::other("a topic-pattern is no regular expression", e))
    }
}

/// The topics that some table reads. Nobody waits for the others.
#[derive(Debug, Clone)]
pub struct SourceTopics(Regex);

impl SourceTopics {
    /// The offsets of these topics alone.
    pub fn only(&self, offsets: &Offsets) -> Offsets {
        let mut kept = Offsets::default();
        for (topic, partition, next) in offsets.iter().filter(|(topic, ..)| self.0.is_match(topic)) {
            kept.set(topic, partition, next);
        }
        kept
    }
}

/// Which rules a program has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleChoice<'a> {
    /// None at all.
    None,
    /// Those in the binary.
    Shipped,
    /// Those in a folder.
    Folder(&'a Path),
}

impl SqlSet {
    /// A source pack by name or folder, views and rules: shipped ones unless a folder is named.
    ///
    /// # Errors
    /// If a folder or file cannot be read, or there is no such pack.
    pub fn new(source: &str, views: Option<&Path>, rules: RuleChoice<'_>) -> Result<Self, Error> {
        Ok(Self {
            source: shipped::source(source)?,
            views: views.map_or_else(|| Ok(shipped::views()), shipped::folder)?,
            rules: match rules {
                RuleChoice::None => Vec::new(),
                RuleChoice::Shipped => shipped::rules(),
                RuleChoice::Folder(dir) => shipped::folder(dir)?,
            },
            n_shards: 1,
        })
    }

    /// The files that a configuration names.
    ///
    /// # Errors
    /// As [`SqlSet::new`].
    pub fn of_config(config: &Config) -> Result<Self, Error> {
        let rules = match (&config.rules.dir, config.rules.enabled) {
            (_, false) => RuleChoice::None,
            (Some(dir), true) => RuleChoice::Folder(dir),
            (None, true) => RuleChoice::Shipped,
        };
        let mut set = Self::new(&config.source.pack, config.views.dir.as_deref(), rules)?;
        if let Some(dir) = &config.source.dir {
            set.source = shipped::folder(dir)?;
        }
        Ok(Self { n_shards: config.engine.shards, ..set })
    }

    /// Parses and plans everything.
    ///
    /// # Errors
    /// [`Error::Sql`] with all messages: those of the tables and rules together, and, when these are right, those of
    /// the views.
    pub fn plan(&self) -> Result<Planned, Error> {
        let mut problems = Vec::new();
        let mut keep = |found| problems.extend(found);
        let mut tables = ingest::ddl::parse_tables(&self.source).map_err(&mut keep).unwrap_or_default();
        let rules = alerting::rules::load(&self.rules).map_err(&mut keep).unwrap_or_default();
        if !problems.is_empty() {
            return Err(Error::Sql(problems));
        }
        let computed = ingest::ddl::computed_views(&self.source);
        let files: Vec<_> = self.source.iter().chain(&computed).chain(&self.views).cloned().collect();
        let queries: Vec<_> = rules.iter().map(rule_query).collect();
        let program = Program::load_sharded(&tables, &files, &queries, self.n_shards).map_err(Error::Sql)?;
        let problems = alerting::rules::check_columns(&rules, &program.views());
        if !problems.is_empty() {
            return Err(Error::Sql(problems));
        }
        for table in &mut tables {
            let name = std::sync::Arc::clone(&table.name);
            table.read_only(|column| program.reads(&name, column));
        }
        Ok(Planned { tables, rules, program })
    }

    /// The rules alone, for a node that runs only the alerting stage.
    ///
    /// # Errors
    /// [`Error::Sql`] with all messages.
    pub fn load_rules(&self) -> Result<Vec<Rule>, Error> {
        alerting::rules::load(&self.rules).map_err(Error::Sql)
    }
}

fn rule_query(rule: &Rule) -> RuleQuery {
    RuleQuery {
        name: rule.name.clone(),
        key: rule.key.clone(),
        statement: rule.statement.clone(),
        description: rule.description.clone(),
    }
}
