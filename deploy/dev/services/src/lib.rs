//! Real services for tests: Kafka, PostgreSQL, Redis, S3, Kafka Connect with Debezium, and Flink, through the scripts of
//! `deploy/dev`.
//!
//! Each value owns one running service on free loopback ports; dropping it ends the service and removes its files, and
//! the service ends as well if the test process is killed. The calls block, for seconds when they start something: call
//! them from `spawn_blocking` or before the runtime is busy.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A script of `deploy/dev` failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The script could not be started, or its folder not be made.
    #[error("could not run {script}")]
    Start {
        /// File name of the script.
        script: String,
        /// Why.
        source: std::io::Error,
    },
    /// The script ended with an error.
    #[error("{script} {action} failed: {message}")]
    Failed {
        /// File name of the script.
        script: String,
        /// Its first argument.
        action: String,
        /// What it wrote to its standard error.
        message: String,
    },
    /// The script did not print an expected line.
    #[error("{script} printed no {key}")]
    Missing {
        /// File name of the script.
        script: String,
        /// The key of the line.
        key: String,
    },
}

/// One Kafka node.
#[derive(Debug)]
pub struct Kafka {
    folder: Folder,
    brokers: String,
}

impl Kafka {
    /// Starts a node with default settings.
    ///
    /// # Errors
    /// What `kafka.sh` says: Java or Maven missing, no access to Maven Central on first use.
    pub fn start() -> Result<Self, Error> {
        Self::start_with(&[])
    }

    /// Starts a node with broker settings of the form `KEY=VALUE` added.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub fn start_with(settings: &[&str]) -> Result<Self, Error> {
        let folder = Folder::new("kafka.sh")?;
        let printed = folder.run_in("start", settings)?;
        let brokers = folder.value(&printed, "KAFKA_BROKERS")?;
        Ok(Self { folder, brokers })
    }

    /// `HOST:PORT`; stays the same over restarts.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Kills the node as a crash would; its data stays.
    ///
    /// # Errors
    /// If the script cannot be run.
    pub fn kill(&self) -> Result<(), Error> {
        self.folder.run_in("kill9", &[]).map(drop)
    }

    /// Starts the node again after [`Kafka::kill`], at the same address and with its data.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub fn restart(&self) -> Result<(), Error> {
        self.folder.run_in("start", &[]).map(drop)
    }
}

/// One PostgreSQL server with logical replication. Its only user is the superuser `postgres`, without a password.
#[derive(Debug)]
pub struct Postgres {
    folder: Folder,
    port: String,
    url: String,
}

impl Postgres {
    /// Starts a server with an empty database `postgres`.
    ///
    /// # Errors
    /// What `postgres.sh` says: the server's programs are missing.
    pub fn start() -> Result<Self, Error> {
        let folder = Folder::new("postgres.sh")?;
        let printed = folder.run_in("start", &[])?;
        let (port, url) = (folder.value(&printed, "PGPORT")?, folder.value(&printed, "POSTGRES_URL")?);
        Ok(Self { folder, port, url })
    }

    /// URL of the database `postgres`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// Runs SQL in the database `postgres` and returns the rows as `psql -At` prints them.
    ///
    /// # Errors
    /// What psql says of a failing statement.
    pub fn psql(&self, sql: &str) -> Result<String, Error> {
        self.folder.run_in("psql", &["-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql])
    }
}

/// One Kafka Connect worker with Debezium's PostgreSQL connector.
#[derive(Debug)]
pub struct Connect {
    folder: Folder,
    url: String,
}

impl Connect {
    /// Starts a worker on a Kafka node.
    ///
    /// # Errors
    /// What `connect.sh` says.
    pub fn start(kafka: &Kafka) -> Result<Self, Error> {
        let folder = Folder::new("connect.sh")?;
        let printed = folder.run_in("start", &[kafka.brokers()])?;
        let url = folder.value(&printed, "CONNECT_URL")?;
        Ok(Self { folder, url })
    }

    /// URL of its REST interface.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Adds a Debezium connector for the database `postgres` and waits until it runs. Topics are `PREFIX.public.TABLE`;
    /// `settings` of the form `KEY=VALUE` override the defaults, which leave decimals `precise`.
    ///
    /// # Errors
    /// What Connect says of the connector.
    pub fn add_postgres(&self, name: &str, postgres: &Postgres, prefix: &str, settings: &[&str]) -> Result<(), Error> {
        let mut args = vec![name, postgres.port(), "postgres", prefix];
        args.extend_from_slice(settings);
        self.folder.run_in("add-postgres", &args).map(drop)
    }

    /// Kills the worker as a crash would.
    ///
    /// # Errors
    /// If the script cannot be run.
    pub fn kill(&self) -> Result<(), Error> {
        self.folder.run_in("kill9", &[]).map(drop)
    }
}

/// One Redis server, whose data does not outlive it.
#[derive(Debug)]
pub struct Redis {
    folder: Folder,
    url: String,
}

impl Redis {
    /// Starts an empty server.
    ///
    /// # Errors
    /// What `redis.sh` says: the server's program is missing.
    pub fn start() -> Result<Self, Error> {
        let folder = Folder::new("redis.sh")?;
        let printed = folder.run_in("start", &[])?;
        let url = folder.value(&printed, "REDIS_URL")?;
        Ok(Self { folder, url })
    }

    /// Its URL; stays the same over restarts.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Kills the server as a crash would; its data is gone.
    ///
    /// # Errors
    /// If the script cannot be run.
    pub fn kill(&self) -> Result<(), Error> {
        self.folder.run_in("kill9", &[]).map(drop)
    }

    /// Starts the server again after [`Redis::kill`], at the same address.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn restart(&self) -> Result<(), Error> {
        self.folder.run_in("start", &[]).map(drop)
    }
}

/// One server of Amazon's S3 protocol with an empty bucket, whose content does not outlive it.
#[derive(Debug)]
pub struct S3 {
    /// Ended when dropped.
    _folder: Folder,
    endpoint: String,
}

impl S3 {
    /// Starts a server.
    ///
    /// # Errors
    /// What `s3.sh` says: Python missing, no access to PyPI on first use.
    pub fn start(bucket: &str) -> Result<Self, Error> {
        let folder = Folder::new("s3.sh")?;
        let printed = folder.run_in("start", &[bucket])?;
        let endpoint = folder.value(&printed, "S3_ENDPOINT")?;
        Ok(Self { _folder: folder, endpoint })
    }

    /// The environment in which a process finds it.
    pub fn environment(&self) -> [(&'static str, &str); 5] {
        [
            ("AWS_ENDPOINT", &self.endpoint),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "andon"),
            ("AWS_SECRET_ACCESS_KEY", "andon"),
        ]
    }
}

/// One Flink cluster: job manager, task manager and SQL gateway.
#[derive(Debug)]
pub struct Flink {
    folder: Folder,
    gateway: String,
    pids: Vec<u32>,
}

impl Flink {
    /// Starts a cluster with settings of the form `KEY=VALUE`.
    ///
    /// # Errors
    /// What `flink.sh` says: Java missing, no access to PyPI or Maven Central on first use.
    pub fn start_with(settings: &[&str]) -> Result<Self, Error> {
        let folder = Folder::new("flink.sh")?;
        let printed = folder.run_in("start", settings)?;
        let gateway = folder.value(&printed, "FLINK_GATEWAY")?;
        let pids = folder.value(&printed, "FLINK_PIDS")?;
        let pids = pids.trim_matches('"').split_whitespace().filter_map(|pid| pid.parse().ok());
        Ok(Self { gateway, pids: pids.take(2).collect(), folder })
    }

    /// URL of the SQL gateway.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// Process ids of the job manager and the task manager.
    pub fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Runs a SQL script and returns the ids of the jobs it started.
    ///
    /// # Errors
    /// What Flink says of a statement.
    pub fn run(&self, script: &Path) -> Result<Vec<String>, Error> {
        let printed = self.folder.run_in("run", &[&script.display().to_string()])?;
        Ok(printed.lines().map(str::to_owned).collect())
    }

    /// Waits until a job over bounded sources has finished.
    ///
    /// # Errors
    /// Why it failed.
    pub fn wait(&self, job: &str) -> Result<(), Error> {
        self.folder.run_in("wait", &[job]).map(drop)
    }
}

/// PostgreSQL, Kafka and Connect together: what a test of the whole way from a database needs.
#[derive(Debug)]
pub struct DevServices {
    /// Dropped first, since it writes to the other two.
    pub connect: Connect,
    /// The database.
    pub postgres: Postgres,
    /// The broker.
    pub kafka: Kafka,
}

impl DevServices {
    /// Starts all three, the database beside the other two.
    ///
    /// # Errors
    /// As of each service.
    pub fn start() -> Result<Self, Error> {
        std::thread::scope(|scope| {
            let postgres = scope.spawn(Postgres::start);
            let kafka = Kafka::start()?;
            let connect = Connect::start(&kafka)?;
            let postgres = postgres.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(Self { connect, postgres, kafka })
        })
    }
}

/// The folder of one service and the script that looks after it.
#[derive(Debug)]
struct Folder {
    script: &'static str,
    dir: TempDir,
}

impl Folder {
    fn new(script: &'static str) -> Result<Self, Error> {
        let dir = tempfile::Builder::new().prefix("andon-dev-").tempdir();
        Ok(Self { script, dir: dir.map_err(|source| Error::Start { script: script.to_owned(), source })? })
    }

    fn script_path(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(self.script)
    }

    /// Runs `SCRIPT ACTION DIR ARGS…` and returns what it printed.
    fn run_in(&self, action: &str, args: &[&str]) -> Result<String, Error> {
        let output = Command::new(self.script_path())
            .arg(action)
            .arg(self.dir.path())
            .args(args)
            .env("ANDON_DEV_OWNER", std::process::id().to_string())
            .stdin(Stdio::null())
            .output()
            .map_err(|source| Error::Start { script: self.script.to_owned(), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::Failed { script: self.script.to_owned(), action: action.to_owned(), message })
    }

    fn value(&self, printed: &str, key: &str) -> Result<String, Error> {
        let lines: HashMap<_, _> = printed.lines().filter_map(|line| line.split_once('=')).collect();
        let missing = || Error::Missing { script: self.script.to_owned(), key: key.to_owned() };
        lines.get(key).map(|value| (*value).to_owned()).ok_or_else(missing)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = self.run_in("clean", &[]) {
            eprintln!("{error}");
        }
    }
}
