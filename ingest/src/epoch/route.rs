//! Which tables a topic feeds.

use std::collections::HashMap;
use std::sync::Arc;

use model::{SourceTable, TopicSelector};
use regex::Regex;

use super::transactions::TOPIC_PATTERN;
use crate::Error;
use crate::ddl::whole_name;

/// Tables by topic. Two tables may read one topic, and a pattern feeds its table from many.
#[derive(Debug, Clone)]
pub(super) struct Routes {
    selectors: Vec<(TopicSelector, Option<Regex>)>,
    by_topic: HashMap<Arc<str>, Arc<[usize]>>,
}

impl Routes {
    pub(super) fn new(tables: &[SourceTable]) -> Result<Self, Error> {
        let regex = |t: &SourceTable| match &t.topic {
            TopicSelector::Name(_) => Ok(None),
            TopicSelector::Pattern(pattern) => Regex::new(&whole_name(pattern))
                .map(Some)
                .map_err(|e| Error::Pattern { table: Arc::clone(&t.name), source: Box::new(e) }),
        };
        let selectors = tables.iter().map(|t| Ok((t.topic.clone(), regex(t)?))).collect::<Result<_, Error>>()?;
        Ok(Self { selectors, by_topic: HashMap::new() })
    }

    /// What to read, each once.
    pub(super) fn selectors(&self) -> Vec<TopicSelector> {
        let mut unique: Vec<TopicSelector> = Vec::new();
        for (selector, _) in &self.selectors {
            if !unique.contains(selector) {
                unique.push(selector.clone());
            }
        }
        // Marks of source transactions; there are none where the connector sends none.
        unique.push(TopicSelector::Pattern(TOPIC_PATTERN.to_owned()));
        unique
    }

    /// Indexes of the tables that read a topic.
    pub(super) fn tables(&mut self, topic: &Arc<str>) -> Arc<[usize]> {
        if let Some(tables) = self.by_topic.get(topic) {
            return Arc::clone(tables);
        }
        let matches = |(selector, regex): &(TopicSelector, Option<Regex>)| match (selector, regex) {
            (TopicSelector::Name(name), _) => **name == **topic,
            (TopicSelector::Pattern(_), Some(regex)) => regex.is_match(topic),
            (TopicSelector::Pattern(_), None) => false,
        };
        let tables: Arc<[usize]> =
            self.selectors.iter().enumerate().filter(|(_, s)| matches(s)).map(|(i, _)| i).collect();
        self.by_topic.insert(Arc::clone(topic), Arc::clone(&tables));
        tables
    }
}
