//! The configuration: a TOML file, then `ANDON_…` environment variables on top, then defaults for the rest.
//!
//! Every setting is documented where it is defined, in [`sections`]; `deploy/andon.example.toml` lists them all with
//! their defaults, and a test holds the two in step. A variable is named after its place:
//! `ANDON_KAFKA__BROKERS` sets `kafka.brokers`. A value that looks like a number or a boolean but is a text needs
//! quotes of its own: `ANDON_API__AUTH__JWT_SECRET='"1234"'`.

mod sections;

use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use sections::{
    Alerting, Api, ClockMode, DEFAULT_LOG_FILTER, Database, Engine, Ingest, Kafka, LocalLog, LogFormat, Rules, Source,
    State, Telemetry, Views,
};

use crate::Error;

/// Prefix of the environment variables.
const ENV_PREFIX: &str = "ANDON_";

/// Everything that can be configured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Config {
    /// The durable local log, used when no broker is configured.
    pub log: LocalLog,
    /// Kafka, used as soon as `brokers` is set.
    pub kafka: Kafka,
    /// Which ERP's tables are read.
    pub source: Source,
    /// The views that are kept.
    pub views: Views,
    /// The alert rules.
    pub rules: Rules,
    /// Where records become epochs.
    pub ingest: Ingest,
    /// The engine.
    pub engine: Engine,
    /// State that outlives the process.
    pub state: State,
    /// Alerting.
    pub alerting: Alerting,
    /// The web server.
    pub api: Api,
    /// The database of alerts.
    pub database: Database,
    /// Logs.
    pub telemetry: Telemetry,
}

/// Names of the sections, as in the file.
const SECTIONS: [&str; 12] = [
    "log",
    "kafka",
    "source",
    "views",
    "rules",
    "ingest",
    "engine",
    "state",
    "alerting",
    "api",
    "database",
    "telemetry",
];

impl Config {
    /// Reads a file and the environment, and validates the result.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be read, [`Error::Config`] with every problem found.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
        let figment = Figment::from(Toml::string(&text)).merge(Env::prefixed(ENV_PREFIX).split("__"));
        let config = Self::from_figment(&figment).map_err(|problems| {
            Error::Config(
                problems.into_iter().map(|p| p.replace("TOML source string", &path.display().to_string())).collect(),
            )
        })?;
        config.validated()
    }

    /// Reads a TOML text alone, without the environment and without validating what it says.
    ///
    /// # Errors
    /// [`Error::Config`] with every problem found.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::from_figment(&Figment::from(Toml::string(text))).map_err(Error::Config)
    }

    fn from_figment(figment: &Figment) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        match figment.extract::<figment::value::Dict>() {
            Err(error) => return Err(error.into_iter().map(|e| e.to_string()).collect()),
            Ok(top) => problems.extend(
                top.keys()
                    .filter(|k| !SECTIONS.contains(&k.as_str()))
                    .map(|key| format!("unknown section [{key}]; known: {}", SECTIONS.join(", "))),
            ),
        }
        let config = Self {
            log: section(figment, "log", &mut problems),
            kafka: section(figment, "kafka", &mut problems),
            source: section(figment, "source", &mut problems),
            views: section(figment, "views", &mut problems),
            rules: section(figment, "rules", &mut problems),
            ingest: section(figment, "ingest", &mut problems),
            engine: section(figment, "engine", &mut problems),
            state: section(figment, "state", &mut problems),
            alerting: section(figment, "alerting", &mut problems),
            api: section(figment, "api", &mut problems),
            database: section(figment, "database", &mut problems),
            telemetry: section(figment, "telemetry", &mut problems),
        };
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// The configuration if no section has anything to say against it.
    ///
    /// # Errors
    /// [`Error::Config`] with every problem found.
    pub fn validated(self) -> Result<Self, Error> {
        let mut problems = Vec::new();
        self.kafka.validate(&mut problems);
        self.source.validate(&mut problems);
        self.views.validate(&mut problems);
        self.rules.validate(&mut problems);
        self.ingest.validate(&mut problems);
        self.engine.validate(&mut problems);
        self.state.validate(&mut problems);
        self.api.validate(&self.database, &mut problems);
        self.database.validate(&mut problems);
        self.telemetry.validate(&mut problems);
        if problems.is_empty() { Ok(self) } else { Err(Error::Config(problems)) }
    }
}

/// One section, or its defaults with the problem noted, so that the other sections are still looked at.
fn section<T: DeserializeOwned + Default>(figment: &Figment, name: &str, problems: &mut Vec<String>) -> T {
    if figment.find_value(name).is_err() {
        return T::default();
    }
    figment.extract_inner(name).unwrap_or_else(|error| {
        problems.extend(error.into_iter().map(|e| e.to_string()));
        T::default()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use expect_test::{Expect, expect};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "expect! makes a value")]
    fn check(text: &str, expected: Expect) {
        let out = match Config::parse(text).and_then(Config::validated) {
            Ok(_) => "ok".to_owned(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&out);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        check(
            "[kafak]\nbrokers = \"x\"\n[api]\nlisten = \"nonsense\"\n[engine]\nclok = \"wall\"\n[ingest]\nepoch_records_max = \"many\"",
            expect![[r#"
                the configuration has 3 problem(s):
                  - unknown section [kafak]; known: log, kafka, source, views, rules, ingest, engine, state, alerting, api, database, telemetry
                  - invalid type: found string "many", expected usize for key "default.epoch_records_max.ingest" in TOML source string
                  - unknown field: found `clok`, expected `one of `clock`, `sql_poll_ms`, `shards`` for key "default.clok.engine" in TOML source string"#]],
        );
        check(
            "[source]\npack = \"nav\"\n[api]\nlisten = \"nonsense\"\n[ingest]\nepoch_records_max = 0\n[database]\nurl = \"mysql://x\"",
            expect![[r#"
                the configuration has 4 problem(s):
                  - source.pack: there is no pack "nav"; shipped: pyerp, tryton
                  - ingest.epoch_records_max: must be at least 1
                  - api.listen: "nonsense" is not ADDRESS:PORT, for example 127.0.0.1:8080
                  - database.url: must start with sqlite: or postgres:"#]],
        );
    }

    /// The example file with its settings made active, without those that have no default.
    fn example_with_defaults() -> (String, BTreeSet<String>) {
        let (mut text, mut keys, mut section) = (String::new(), BTreeSet::new(), String::new());
        for line in include_str!("../../deploy/andon.example.toml").lines() {
            let setting = line.strip_prefix('#').unwrap_or(line);
            if setting.starts_with(' ') || setting.is_empty() {
                continue;
            }
            if let Some(name) = setting.strip_prefix('[') {
                section = name.trim_end_matches(']').to_owned();
            } else if let Some((key, _)) = setting.split_once(" = ") {
                keys.insert(format!("{section}.{key}"));
            }
            if !line.ends_with("# no default") {
                text.push_str(setting);
                text.push('\n');
            }
        }
        (text, keys)
    }

    fn leaves(value: &serde_json::Value, place: &str, keys: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(fields) if !fields.is_empty() => {
                for (name, value) in fields {
                    let dot = if place.is_empty() { "" } else { "." };
                    leaves(value, &format!("{place}{dot}{name}"), keys);
                }
            }
            _ => {
                keys.insert(place.to_owned());
            }
        }
    }

    #[test]
    fn the_example_lists_every_setting_with_its_default() {
        let (text, keys) = example_with_defaults();
        let config = serde_json::to_value(Config::parse(&text).expect("valid")).expect("JSON");
        let defaults = serde_json::to_value(Config::default()).expect("JSON");
        assert_eq!(config, defaults);
        let mut expected = BTreeSet::new();
        leaves(&defaults, "", &mut expected);
        assert_eq!(keys, expected);
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        #[expect(clippy::result_large_err, reason = "the error type is the library's")]
        figment::Jail::expect_with(|jail| {
            jail.create_file("andon.toml", "[kafka]\nbrokers = \"from-file:1\"\n")?;
            jail.set_env("ANDON_KAFKA__BROKERS", "from-env:1");
            jail.set_env("ANDON_KAFKA__CLIENT__SECURITY_PROTOCOL", "SASL_SSL");
            jail.set_env("ANDON_API__AUTH__JWT_SECRET", "0123456789abcdef0123456789abcdef");
            let config = Config::load(Path::new("andon.toml")).expect("valid");
            assert_eq!(config.kafka.brokers.as_deref(), Some("from-env:1"));
            assert_eq!(config.kafka.client.get("security.protocol").map(String::as_str), Some("SASL_SSL"));
            Ok(())
        });
    }
}
