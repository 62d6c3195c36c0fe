//! The certificate: read at the start, and again whenever its files change, without a connection lost. A pair of files
//! that cannot be used leaves the one before in force.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;
use crate::error::Error;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The certificate in force.
pub(crate) struct Certificate {
    config: TlsConfig,
    current: ArcSwap<ServerConfig>,
}

impl Certificate {
    /// # Errors
    /// [`Error::Certificate`] if the files cannot be used.
    pub(crate) fn load(config: &TlsConfig) -> Result<Self, Error> {
        Ok(Self { current: ArcSwap::new(read(config)?), config: config.clone() })
    }

    /// Shakes hands with the certificate in force.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Looks for changes of the files, for ever.
    pub(crate) async fn follow(&self) {
        let mut known = self.stamps().await;
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let now = self.stamps().await;
            if now == known {
                continue;
            }
            // Both files are replaced one after the other: until they fit each other the old pair stays.
            let config = self.config.clone();
            match tokio::task::spawn_blocking(move || read(&config)).await {
                Ok(Ok(fresh)) => {
                    self.current.store(fresh);
                    known = now;
                    metrics::counter!("api_certificate_reloads_total", "outcome" => "ok").increment(1);
                    tracing::info!("the certificate was replaced");
                }
                Ok(Err(error)) => {
                    known = now;
                    metrics::counter!("api_certificate_reloads_total", "outcome" => "failed").increment(1);
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the new certificate cannot be used; the one before stays in force"
                    );
                }
                Err(error) => tracing::error!(%error, "cannot read the certificate"),
            }
        }
    }

    async fn stamps(&self) -> [Option<SystemTime>; 2] {
        let stamp = async |path: Option<&Path>| tokio::fs::metadata(path?).await.ok()?.modified().ok();
        let TlsConfig { certificate_file, key_file } = &self.config;
        [stamp(certificate_file.as_deref()).await, stamp(key_file.as_deref()).await]
    }
}

fn read(config: &TlsConfig) -> Result<Arc<ServerConfig>, Error> {
    let (Some(certificate_file), Some(key_file)) = (&config.certificate_file, &config.key_file) else {
        return Err(Error::Certificate("api.tls needs both certificate_file and key_file".to_owned()));
    };
    let wrong = |path: &Path, reason: String| Error::Certificate(format!("{}: {reason}", path.display()));
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate_file)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(certificate_file, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| wrong(key_file, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| wrong(certificate_file, error.to_string()))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}
