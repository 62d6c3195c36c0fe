//! What is known of the cluster: its topics, whether it answers, and the requests that change it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use model::{LogError, PartitionOffsets, TopicSpec};
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::Client;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::KafkaOptions;

/// A broker that does not answer one request for so long is asked again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A topic that was made or changed is seen by the whole cluster within this time.
const PROPAGATION_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks whether a change has arrived.
const PROPAGATION_PAUSE: Duration = Duration::from_millis(30);
/// Between two attempts while no broker answers.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Topic → number of partitions.
pub(super) type Catalog = BTreeMap<String, i32>;

/// Whether the brokers answer; tells the log and the metrics once per change.
#[derive(Debug, Default)]
pub(super) struct Health {
    down: AtomicBool,
}

impl Health {
    pub(super) fn is_down(&self, reason: &str) {
        if !self.down.swap(true, Ordering::AcqRel) {
            warn!(reason, "no Kafka broker can be reached; waiting for one");
            counter!("log_kafka_outages_total").increment(1);
            gauge!("log_kafka_up").set(0);
        }
    }

    pub(super) fn is_up(&self) {
        if self.down.swap(false, Ordering::AcqRel) {
            info!("Kafka can be reached again");
        }
        gauge!("log_kafka_up").set(1);
    }
}

/// What librdkafka tells of a client.
#[derive(Debug, Clone, Default)]
pub(super) struct Context {
    pub(super) health: Arc<Health>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Lost connections are told once by `Health`; librdkafka tells every attempt to get one back.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                error!(facility, message, "kafka client");
            }
            _ => debug!(facility, message, "kafka client"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.health.is_down(reason),
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                error!(reason, "Kafka refuses our credentials");
            }
            _ => debug!(%error, reason, "kafka client"),
        }
    }
}

/// The administrating client, and a thread that keeps the catalog.
pub(super) struct Cluster {
    admin: AdminClient<Context>,
    context: Context,
    replication_factor: i32,
    topic_config: BTreeMap<String, String>,
    catalog: watch::Receiver<Arc<Catalog>>,
    /// Asks the thread to look at once. `None` only while the last owner goes.
    refresh: Mutex<Option<SyncSender<()>>>,
    /// Counts the looks, so that a caller can wait for one that began after its call.
    rounds: watch::Receiver<u64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Cluster {
    /// Connects and reads the catalog for the first time.
    pub(super) async fn connect(options: &KafkaOptions) -> Result<Arc<Self>, LogError> {
        let context = Context::default();
        let config = options.client_config(&[]);
        let admin = AdminClient::from_config_and_context(&config, context.clone()).map_err(refused)?;
        let looker: AdminClient<Context> =
            AdminClient::from_config_and_context(&config, context.clone()).map_err(refused)?;
        let (deadline, brokers) = (Instant::now() + options.connect_timeout, options.brokers.clone());
        let first = blocking(move || {
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                match look(looker.inner(), left.clamp(Duration::from_millis(1), REQUEST_TIMEOUT)) {
                    Ok(catalog) => return Ok((looker, catalog)),
                    Err(error) if Instant::now() >= deadline => {
                        return Err(LogError::Unavailable { reason: format!("no answer from {brokers}: {error}") });
                    }
                    Err(_) => std::thread::sleep(RETRY_PAUSE.min(left)),
                }
            }
        });
        let (looker, catalog) = first.await?;
        context.health.is_up();
        let (catalog_sender, catalog) = watch::channel(Arc::new(catalog));
        let (round_sender, rounds) = watch::channel(0);
        let (refresh, asked) = sync_channel(1);
        let (interval, health) = (options.discovery_interval, Arc::clone(&context.health));
        let thread = std::thread::Builder::new()
            .name("kafka-catalog".to_owned())
            .spawn(move || keep_catalog(&looker, &catalog_sender, &round_sender, &asked, interval, &health))
            .map_err(|e| LogError::Unavailable { reason: format!("no thread for the catalog: {e}") })?;
        Ok(Arc::new(Self {
            admin,
            context,
            replication_factor: options.replication_factor,
            topic_config: options.topic_config.clone(),
            catalog,
            refresh: Mutex::new(Some(refresh)),
            rounds,
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// The context for another client of the same cluster.
    pub(super) fn context(&self) -> Context {
        self.context.clone()
    }

    /// What changes when a topic or partition comes or goes.
    pub(super) fn watch_catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.clone()
    }

    /// The catalog as last read.
    pub(super) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.borrow())
    }

    /// The catalog, read after this call.
    pub(super) async fn fresh_catalog(&self) -> Result<Arc<Catalog>, LogError> {
        let mut rounds = self.rounds.clone();
        // The look under way may have begun before this call: the one after it has not.
        let wanted = *rounds.borrow() + 2;
        let ended = |_| LogError::Unavailable { reason: "the catalog thread ended".to_owned() };
        let wait = async {
            loop {
                self.ask_refresh();
                if *rounds.borrow() >= wanted {
                    return Ok(());
                }
                rounds.changed().await.map_err(ended)?;
            }
        };
        match tokio::time::timeout(REQUEST_TIMEOUT * 2, wait).await {
            Ok(result) => result?,
            Err(_) => return Err(LogError::Unavailable { reason: "no Kafka broker answers".to_owned() }),
        }
        Ok(self.catalog())
    }

    fn ask_refresh(&self) {
        if let Some(refresh) = &*self.refresh.lock().unwrap_or_else(PoisonError::into_inner) {
            // Full means that a look is asked for already.
            refresh.try_send(()).ok();
        }
    }

    /// Makes a topic or adds partitions, and waits until the cluster shows it.
    pub(super) async fn create_topic(&self, topic: &str, spec: TopicSpec) -> Result<(), LogError> {
        let known = self.catalog().get(topic).copied();
        if known.is_some_and(|n_partitions| n_partitions >= spec.partitions) {
            return Ok(());
        }
        let retention_ms = spec.retention.map_or_else(|| "-1".to_owned(), |time| time.as_millis().to_string());
        let mut new = NewTopic::new(topic, spec.partitions.max(1), TopicReplication::Fixed(self.replication_factor))
            .set("cleanup.policy", if spec.compacted { "compact" } else { "delete" })
            .set("retention.ms", &retention_ms);
        for (name, value) in &self.topic_config {
            new = new.set(name, value);
        }
        let created = self.admin.create_topics([&new], &admin_options()).await.map_err(admin_error)?;
        for result in created {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(refused_code(&format!("topic {topic} cannot be made"), code)),
            }
        }
        let now = self.wait_for(topic, |n_partitions| n_partitions.is_some()).await?;
        if now.is_some_and(|n_partitions| n_partitions < spec.partitions) {
            let n_wanted = usize::try_from(spec.partitions).unwrap_or(1);
            let more = NewPartitions::new(topic, n_wanted);
            for result in self.admin.create_partitions([&more], &admin_options()).await.map_err(admin_error)? {
                match result {
                    // Somebody else was faster.
                    Ok(_) | Err((_, RDKafkaErrorCode::InvalidPartitions)) => {}
                    Err((_, code)) => return Err(refused_code(&format!("topic {topic} cannot be widened"), code)),
                }
            }
        }
        self.wait_for(topic, |n_partitions| n_partitions.is_some_and(|n| n >= spec.partitions)).await.map(drop)
    }

    /// Removes a topic and waits until the cluster no longer shows it.
    pub(super) async fn delete_topic(&self, topic: &str) -> Result<(), LogError> {
        for result in self.admin.delete_topics(&[topic], &admin_options()).await.map_err(admin_error)? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((_, code)) => return Err(refused_code(&format!("topic {topic} cannot be removed"), code)),
            }
        }
        self.wait_for(topic, |n_partitions| n_partitions.is_none()).await.map(drop)
    }

    async fn wait_for(&self, topic: &str, is_so: impl Fn(Option<i32>) -> bool) -> Result<Option<i32>, LogError> {
        let deadline = Instant::now() + PROPAGATION_TIMEOUT;
        loop {
            let n_partitions = self.fresh_catalog().await?.get(topic).copied();
            if is_so(n_partitions) {
                return Ok(n_partitions);
            }
            if Instant::now() > deadline {
                let reason = format!("the change of topic {topic} did not spread in {PROPAGATION_TIMEOUT:?}");
                return Err(LogError::Unavailable { reason });
            }
            tokio::time::sleep(PROPAGATION_PAUSE).await;
        }
    }

    /// Bounds of each partition.
    pub(super) async fn offsets(
        self: &Arc<Self>,
        topic: &str,
        n_partitions: i32,
    ) -> Result<Vec<PartitionOffsets>, LogError> {
        let (cluster, topic) = (Arc::clone(self), topic.to_owned());
        blocking(move || {
            let client = cluster.admin.inner();
            let bounds = |partition| {
                let (earliest, end) =
                    client.fetch_watermarks(&topic, partition, REQUEST_TIMEOUT).map_err(unavailable)?;
                Ok(PartitionOffsets { partition, earliest, end })
            };
            (0..n_partitions).map(bounds).collect()
        })
        .await
    }

    /// Forgets the records of a partition before an offset.
    pub(super) async fn trim(&self, topic: &str, partition: i32, before_offset: i64) -> Result<(), LogError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before_offset)).map_err(refused)?;
        let trimmed = self.admin.delete_records(&list, &admin_options()).await.map_err(admin_error)?;
        match trimmed.elements().iter().find_map(|element| element.error().err()) {
            Some(error) => Err(LogError::Refused { reason: format!("cannot trim topic {topic}: {error}") }),
            None => Ok(()),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.refresh.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            error!("the catalog thread had panicked");
        }
    }
}

/// Looks at the catalog at an interval and when asked, until the cluster is dropped.
fn keep_catalog(
    client: &AdminClient<Context>,
    catalog: &watch::Sender<Arc<Catalog>>,
    rounds: &watch::Sender<u64>,
    asked: &Receiver<()>,
    interval: Duration,
    health: &Health,
) {
    loop {
        match asked.recv_timeout(interval) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        match look(client.inner(), REQUEST_TIMEOUT) {
            Ok(found) => {
                health.is_up();
                catalog.send_if_modified(|known| {
                    let is_new = **known != found;
                    if is_new {
                        *known = Arc::new(found);
                    }
                    is_new
                });
                rounds.send_modify(|round| *round = round.wrapping_add(1));
            }
            Err(error) => {
                health.is_down(&error.to_string());
                std::thread::sleep(RETRY_PAUSE);
            }
        }
    }
}

fn look(client: &Client<Context>, timeout: Duration) -> Result<Catalog, KafkaError> {
    let metadata = client.fetch_metadata(None, timeout)?;
    let usable = metadata.topics().iter().filter(|topic| topic.error().is_none() && !topic.partitions().is_empty());
    Ok(usable
        .map(|topic| (topic.name().to_owned(), i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)))
        .collect())
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PROPAGATION_TIMEOUT)).request_timeout(Some(PROPAGATION_TIMEOUT))
}

/// Runs a call of librdkafka that blocks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(LogError::Unavailable { reason: "the call was broken off".to_owned() }),
    }
}

pub(super) fn refused(error: KafkaError) -> LogError {
    LogError::Refused { reason: error.to_string() }
}

pub(super) fn unavailable(error: KafkaError) -> LogError {
    LogError::Unavailable { reason: error.to_string() }
}

fn admin_error(error: KafkaError) -> LogError {
    match error {
        KafkaError::AdminOpCreation(reason) => LogError::Refused { reason },
        other => unavailable(other),
    }
}

fn refused_code(what: &str, code: RDKafkaErrorCode) -> LogError {
    match code {
        RDKafkaErrorCode::RequestTimedOut
        | RDKafkaErrorCode::OperationTimedOut
        | RDKafkaErrorCode::BrokerTransportFailure
        | RDKafkaErrorCode::AllBrokersDown => LogError::Unavailable { reason: format!("{what}: {code}") },
        _ => LogError::Refused { reason: format!("{what}: {code}") },
    }
}
