//! Which topics a reader follows, with the patterns compiled.

use model::{LogError, TopicSelector};
use regex::Regex;

/// Selectors ready for matching.
#[derive(Debug)]
pub(crate) struct Selection {
    names: Vec<String>,
    patterns: Vec<Regex>,
}

impl Selection {
    /// Compiles the selectors.
    ///
    /// # Errors
    /// [`LogError::Refused`] for a pattern that is no regular expression.
    pub(crate) fn new(selectors: Vec<TopicSelector>) -> Result<Self, LogError> {
        let mut selection = Self { names: Vec::new(), patterns: Vec::new() };
        for selector in selectors {
            match selector {
                TopicSelector::Name(name) => selection.names.push(name),
                TopicSelector::Pattern(pattern) => {
                    let whole = format!("^(?:{pattern})$");
                    let regex = Regex::new(&whole).map_err(|error| LogError::Refused {
                        reason: format!("topic pattern {pattern:?} is no regular expression: {error}"),
                    })?;
                    selection.patterns.push(regex);
                }
            }
        }
        Ok(selection)
    }

    /// Whether the reader follows this topic.
    pub(crate) fn matches(&self, topic: &str) -> bool {
        self.names.iter().any(|name| name == topic) || self.patterns.iter().any(|pattern| pattern.is_match(topic))
    }
}

/// Topic names as Kafka allows them, held to by both logs so that a local installation can move to Kafka.
///
/// # Errors
/// [`LogError::Refused`] with what is wrong.
pub(crate) fn check_topic_name(topic: &str) -> Result<(), LogError> {
    const NAME_BYTES_MAX: usize = 249;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty() || topic.len() > NAME_BYTES_MAX || topic == "." || topic == ".." || !topic.chars().all(allowed)
    {
        let reason =
            format!("topic name {topic:?} is not 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes and underscores");
        return Err(LogError::Refused { reason });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names_only() {
        let selection = Selection::new(vec![
            TopicSelector::Name("a.b".to_owned()),
            TopicSelector::Pattern("erp\\..*|x".to_owned()),
        ])
        .unwrap();
        let names = ["a.b", "a.bc", "erp.t", "my.erp.t", "x", "xy"];
        let matched: Vec<_> = names.into_iter().filter(|name| selection.matches(name)).collect();
        assert_eq!(matched, ["a.b", "erp.t", "x"]);
    }

    #[test]
    fn a_broken_pattern_is_refused() {
        let error = Selection::new(vec![TopicSelector::Pattern("(".to_owned())]).unwrap_err();
        assert!(matches!(error, LogError::Refused { .. }));
    }

    #[test]
    fn names_are_held_to_kafkas_rules() {
        for name in ["", ".", "..", "a b", "ä", &"x".repeat(250)] {
            assert!(check_topic_name(name).is_err(), "{name}");
        }
        assert!(check_topic_name("erp.public.product_product-production_bom").is_ok());
    }
}
