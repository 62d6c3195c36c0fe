//! The key set of an identity provider: read at the start, then at intervals, and when a token names a key that is not
//! known yet. A set that cannot be read leaves the last one in place.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt;
use jsonwebtoken::jwk::JwkSet;
use metrics::counter;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::keys::{Key, keys_of_set};

/// A larger answer is not a key set.
const SET_BYTES_MAX: usize = 256 << 10;
/// How long one reading may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Tokens with unknown keys make the set be read at most so often.
const ASKED_INTERVAL_MIN: Duration = Duration::from_secs(5);
/// After a failure it is tried again so soon.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Why a set could not be read.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the request failed")]
    Request(#[from] reqwest::Error),
    #[error("the answer has more than {SET_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the answer is not a key set")]
    Form(#[from] serde_json::Error),
    #[error("the set has no key that can be used")]
    Empty,
}

/// Whether an address may be asked for keys: what it says decides who gets in, so nobody on the way may change it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    let url = reqwest::Url::parse(url).map_err(|error| format!("{url} is not an address: {error}"))?;
    let is_loopback = match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        None => false,
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback => Ok(()),
        _ => Err(format!("{url} must be https, or on this machine")),
    }
}

/// The keys of a set, kept up to date by [`KeySet::run`].
#[derive(Debug)]
pub(crate) struct KeySet {
    url: String,
    refresh: Duration,
    keys: ArcSwap<Vec<Key>>,
    asked: Notify,
}

impl KeySet {
    pub(crate) fn new(url: &str, refresh: Duration) -> Self {
        Self { url: url.to_owned(), refresh, keys: ArcSwap::default(), asked: Notify::new() }
    }

    /// The keys as last read.
    pub(crate) fn keys(&self) -> Arc<Vec<Key>> {
        self.keys.load_full()
    }

    /// Asks for a reading soon, since a token names a key that is not there.
    pub(crate) fn ask(&self) {
        self.asked.notify_one();
    }

    /// Keeps the keys up to date until `shutdown`.
    pub(crate) async fn run(&self, shutdown: CancellationToken) {
        let client = reqwest::Client::builder()
            .timeout(FETCH_TIMEOUT)
            // A redirect could lead away from the address that the operator trusts.
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let client = match client {
            Ok(client) => client,
            Err(error) => return tracing::error!(%error, "cannot make a client for the key set"),
        };
        loop {
            let outcome = self.fetch(&client).await;
            let pause = match &outcome {
                Ok(n_keys) => {
                    tracing::debug!(url = self.url, n_keys, "read the key set");
                    self.refresh
                }
                Err(error) => {
                    tracing::warn!(url = self.url, error = error as &dyn std::error::Error, "cannot read the key set");
                    RETRY_INTERVAL.min(self.refresh)
                }
            };
            let label = if outcome.is_ok() { "read" } else { "failed" };
            counter!("api_jwks_fetches_total", "outcome" => label).increment(1);
            let read_at = Instant::now();
            let asked = async {
                self.asked.notified().await;
                tokio::time::sleep_until(read_at + ASKED_INTERVAL_MIN).await;
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = asked => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn fetch(&self, client: &reqwest::Client) -> Result<usize, FetchError> {
        let response = client.get(&self.url).send().await?.error_for_status()?;
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            if body.len() + chunk.len() > SET_BYTES_MAX {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let keys = keys_of_set(&tolerant_set(&body)?);
        if keys.is_empty() {
            return Err(FetchError::Empty);
        }
        let n_keys = keys.len();
        self.keys.store(Arc::new(keys));
        Ok(n_keys)
    }
}

/// A set without the keys of forms that are not known, as the standard asks for.
pub(crate) fn tolerant_set(body: &[u8]) -> Result<JwkSet, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(body)?;
    Ok(JwkSet { keys: set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect() })
}
