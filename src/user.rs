//! `andon user` and `andon key`: local users and API keys, in the database that the configuration names. Running nodes
//! take a change over within a second.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use dashboard_api::{NewApiKey, Store, StoreError};
use model::Clock;
use model::clock::SystemClock;
use serde_json::{Map, Value};

use crate::Error;
use crate::config::Config;

/// Arguments of `andon user`.
#[derive(Debug, Args)]
pub struct Options {
    /// Configuration file, whose `database.url` holds the users.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Adds a user; the password is read from the first line of stdin.
    Add {
        /// Name to sign in with.
        name: String,
        #[command(flatten)]
        rights: Rights,
    },
    /// Lists users with their roles.
    List,
    /// Gives a user other roles and claims.
    Roles {
        /// The user.
        name: String,
        #[command(flatten)]
        rights: Rights,
    },
    /// Ends a user's sessions and lets the user in no more.
    Disable {
        /// The user.
        name: String,
    },
    /// Lets a user in again.
    Enable {
        /// The user.
        name: String,
    },
    /// Changes a password, read from the first line of stdin, and ends all sessions.
    Passwd {
        /// The user.
        name: String,
    },
}

/// Arguments of `andon key`.
#[derive(Debug, Args)]
pub struct KeyOptions {
    /// Configuration file, whose `database.url` holds the keys.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Makes a key and prints it, this once.
    Add {
        /// What it is for.
        name: String,
        #[command(flatten)]
        rights: Rights,
        /// After so many days it is no longer good.
        #[arg(long, value_name = "N")]
        days: Option<u32>,
    },
    /// Lists keys by their ids.
    List,
    /// Calls a key back.
    Revoke {
        /// The part of the key between the underscores.
        id: String,
    },
}

#[derive(Debug, Args)]
struct Rights {
    /// A role; may be given more than once.
    #[arg(long = "role", value_name = "ROLE", required = true)]
    roles: Vec<String>,
    /// A claim that row conditions may read, for example `region=N`; the value is JSON or a text.
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<String>,
}

impl Rights {
    fn claims(&self) -> Result<Map<String, Value>, Error> {
        let pair = |claim: &String| {
            let (name, value) = claim
                .split_once('=')
                .ok_or_else(|| Error::Usage(format!("--claim {claim}: write NAME=VALUE, for example region=N")))?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            Ok((name.to_owned(), value))
        };
        self.claims.iter().map(pair).collect()
    }

    fn check(&self, config: &Config) -> Result<(), Error> {
        let known = config.api.to_api_config(&config.database).role_names();
        match self.roles.iter().find(|role| !known.contains(role)) {
            Some(role) => Err(Error::Usage(format!("there is no role {role}; known: {}", known.join(", ")))),
            None => Ok(()),
        }
    }
}

/// Runs `andon user …`.
///
/// # Errors
/// If the configuration or the arguments make no sense, or the database fails.
pub async fn run(options: Options) -> Result<(), Error> {
    let config = load(options.config)?;
    let store = open(&config).await?;
    let now_ms = SystemClock.now_us() / 1000;
    let length_min = config.api.auth.password_length_min;
    let outcome = match options.command {
        Command::Add { name, rights } => {
            rights.check(&config)?;
            let claims = rights.claims()?;
            let password = read_password(length_min)?;
            store.add_user(&name, &password, &rights.roles, &claims, now_ms).await
        }
        Command::List => list_users(&store).await?,
        Command::Roles { name, rights } => {
            rights.check(&config)?;
            store.set_roles(&name, &rights.roles, &rights.claims()?, now_ms).await
        }
        Command::Disable { name } => store.set_disabled(&name, true, now_ms).await,
        Command::Enable { name } => store.set_disabled(&name, false, now_ms).await,
        Command::Passwd { name } => store.set_password(&name, &read_password(length_min)?, now_ms).await,
    };
    store.close().await;
    outcome.map_err(failed)
}

/// Runs `andon key …`.
///
/// # Errors
/// As [`run`].
pub async fn run_key(options: KeyOptions) -> Result<(), Error> {
    let config = load(options.config)?;
    let store = open(&config).await?;
    let now_ms = SystemClock.now_us() / 1000;
    let outcome = match options.command {
        KeyCommand::Add { name, rights, days } => {
            rights.check(&config)?;
            let expires_at_ms = days.map(|days| now_ms + i64::from(days) * 24 * 3_600_000);
            let new = NewApiKey { name, claims: rights.claims()?, roles: rights.roles, expires_at_ms };
            match store.add_api_key(&new, now_ms).await {
                Ok(key) => print(&format!("{key}\n")).map(Ok)?,
                Err(error) => Err(error),
            }
        }
        KeyCommand::List => list_keys(&store).await?,
        KeyCommand::Revoke { id } => store.revoke_api_key(&id, now_ms).await,
    };
    store.close().await;
    outcome.map_err(failed)
}

fn load(path: Option<PathBuf>) -> Result<Config, Error> {
    match path {
        Some(path) => Config::load(&path),
        None => Ok(Config::default()),
    }
}

async fn open(config: &Config) -> Result<Store, Error> {
    Store::open(&config.database.url).await.map_err(failed)
}

fn failed(error: StoreError) -> Error {
    match error {
        StoreError::Exists(_) | StoreError::Unknown(_) | StoreError::Invalid(_) => Error::Usage(error.to_string()),
        other => Error::other("the database of users failed", other),
    }
}

async fn list_users(store: &Store) -> Result<Result<(), StoreError>, Error> {
    let users = match store.users().await {
        Ok(users) => users,
        Err(error) => return Ok(Err(error)),
    };
    let lines: String = users
        .iter()
        .map(|user| {
            let state = if user.disabled { "disabled" } else { "active" };
            let claims = Value::Object(user.claims.clone());
            format!("{}\t{state}\t{}\t{claims}\n", user.name, user.roles.join(","))
        })
        .collect();
    print(&lines).map(Ok)
}

async fn list_keys(store: &Store) -> Result<Result<(), StoreError>, Error> {
    let keys = match store.api_keys().await {
        Ok(keys) => keys,
        Err(error) => return Ok(Err(error)),
    };
    let now_ms = SystemClock.now_us() / 1000;
    let lines: String = keys
        .iter()
        .map(|key| {
            let state = match (key.revoked_at_ms, key.expires_at_ms) {
                (Some(_), _) => "revoked",
                (None, Some(end_ms)) if end_ms <= now_ms => "expired",
                (None, _) => "active",
            };
            format!("{}\t{state}\t{}\t{}\n", key.id, key.roles.join(","), key.name)
        })
        .collect();
    print(&lines).map(Ok)
}

fn print(text: &str) -> Result<(), Error> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| Error::other("cannot write the result", e))
}

fn read_password(length_min: usize) -> Result<String, Error> {
    let mut input = std::io::stdin().lock();
    if input.is_terminal() {
        eprint!("Password (it will be seen): ");
    }
    let mut line = String::new();
    input.read_line(&mut line).map_err(|e| Error::other("cannot read the password", e))?;
    let password = line.trim_end_matches(['\n', '\r']);
    if password.chars().count() < length_min {
        return Err(Error::Usage(format!("the password needs at least {length_min} characters")));
    }
    Ok(password.to_owned())
}
