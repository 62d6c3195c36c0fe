//! The log on Kafka, through librdkafka.
//!
//! No consumer group and no transaction is used: readers are given their offsets by whoever keeps checkpoints, and every
//! write is keyed so that writing it again ends in the same place. Outages are waited out; they are logged once when
//! the brokers go and once when they are back, and show in `log_kafka_up`.

mod cluster;
mod parcel;
mod producer;
mod reader;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::{AppendRecord, Log, LogError, LogReader, Offsets, PartitionOffsets, TopicSelector, TopicSpec};
use rdkafka::ClientConfig;

use self::cluster::Cluster;
use self::producer::Producer;
use self::reader::KafkaReader;
use super::selection::{Selection, check_topic_name};

/// How to reach Kafka, and what to ask of it.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// `host:port`, several with commas between them.
    pub brokers: String,
    /// Any property of librdkafka, for TLS and SASL above all (`security.protocol`, `sasl.username`, `ssl.ca.location` …).
    /// They win over the properties that this module sets.
    pub client: BTreeMap<String, String>,
    /// Topic settings for every topic that is made here, for example `min.insync.replicas`.
    pub topic_config: BTreeMap<String, String>,
    /// Copies of each new topic; −1 leaves it to the brokers.
    pub replication_factor: i32,
    /// [`KafkaLog::connect`] gives up when no broker has answered for so long.
    pub connect_timeout: Duration,
    /// An append fails when the brokers have not taken it for so long; before that, outages are waited out.
    pub delivery_timeout: Duration,
    /// New topics and partitions are found within this time.
    pub discovery_interval: Duration,
    /// A record waits this long for others to share its request.
    pub linger: Duration,
}

impl KafkaOptions {
    /// The defaults for these brokers.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            client: BTreeMap::new(),
            topic_config: BTreeMap::new(),
            replication_factor: -1,
            connect_timeout: Duration::from_secs(30),
            delivery_timeout: Duration::from_secs(120),
            discovery_interval: Duration::from_secs(2),
            linger: Duration::from_millis(1),
        }
    }

    /// Properties of all clients, `defaults` among them, with the user's own on top.
    fn client_config(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "andon")
            .set("socket.nagle.disable", "true")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000");
        for (name, value) in defaults {
            config.set(*name, *value);
        }
        for (name, value) in &self.client {
            config.set(name, value);
        }
        config
    }
}

/// A log on Kafka.
pub struct KafkaLog {
    options: KafkaOptions,
    producer: Producer,
    cluster: Arc<Cluster>,
}

impl std::fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLog").field("brokers", &self.options.brokers).finish_non_exhaustive()
    }
}

impl KafkaLog {
    /// Connects, waiting at most [`KafkaOptions::connect_timeout`] for a first answer.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if no broker answered, [`LogError::Refused`] if librdkafka does not take the options.
    pub async fn connect(options: KafkaOptions) -> Result<Arc<Self>, LogError> {
        let cluster = Cluster::connect(&options).await?;
        let producer = Producer::new(&options, Arc::clone(&cluster))?;
        Ok(Arc::new(Self { options, producer, cluster }))
    }
}

#[async_trait]
impl Log for KafkaLog {
    fn describe(&self) -> String {
        format!("Kafka at {}", self.options.brokers)
    }

    async fn create_topic(&self, topic: &str, spec: TopicSpec) -> Result<(), LogError> {
        check_topic_name(topic)?;
        self.cluster.create_topic(topic, spec).await
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), LogError> {
        self.cluster.delete_topic(topic).await
    }

    async fn topics(&self) -> Result<Vec<String>, LogError> {
        let catalog = self.cluster.fresh_catalog().await?;
        Ok(catalog.keys().filter(|name| !is_internal(name)).cloned().collect())
    }

    async fn offsets(&self, topic: &str) -> Result<Vec<PartitionOffsets>, LogError> {
        let n_partitions = self.cluster.fresh_catalog().await?.get(topic).copied().unwrap_or(0);
        self.cluster.offsets(topic, n_partitions).await
    }

    async fn append(&self, records: Vec<AppendRecord>) -> Result<Vec<i64>, LogError> {
        self.producer.append(records).await
    }

    async fn trim(&self, topic: &str, partition: i32, before_offset: i64) -> Result<(), LogError> {
        self.cluster.trim(topic, partition, before_offset).await
    }

    async fn read(&self, topics: Vec<TopicSelector>, from: &Offsets) -> Result<Box<dyn LogReader>, LogError> {
        let selection = Selection::new(topics)?;
        Ok(Box::new(KafkaReader::start(&self.options, Arc::clone(&self.cluster), selection, from.clone())?))
    }
}

/// Kafka's own topics, which no pattern means.
fn is_internal(topic: &str) -> bool {
    topic.starts_with("__")
}
