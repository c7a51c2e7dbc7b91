//! The gateway: ends WireGuard and mutual TLS at each partner's own tunnel address, and is an HTTP proxy to that
//! partner's InfoPol. Nothing is routed. It watches PartnerConnections itself, so neither operator nor kubelet stands
//! between a revocation and its effect.
//!
//! The pure core is [`state`] (what is in force) and [`authorise`] (do the facts agree); [`headers`],
//! [`acknowledge`], [`connected`], [`quiet`], [`rotation`] and [`traffic`] are pure as well. [`control`] is the one task that changes peers, addresses and the table.

pub mod acknowledge;
pub mod addresses;
pub mod authorise;
pub mod checkpoint;
pub mod config;
pub mod connected;
pub mod connections;
pub mod control;
pub mod enrolment;
pub mod est;
pub mod feeds;
pub mod gate;
pub mod headers;
pub mod health;
pub mod kubernetes;
pub mod lead;
pub mod metrics;
pub mod pace;
pub mod pkcs7;
pub mod privileges;
pub mod proxy;
pub mod quiet;
pub mod rotation;
pub mod secrets;
pub mod serve;
pub mod state;
pub mod stream;
pub mod tls;
pub mod traffic;
pub mod tunnel;
pub mod upstream;

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    addresses::Addresses,
    config::Config,
    connections::Door,
    control::Control,
    feeds::Feeds,
    gate::Gate,
    health::Readiness,
    lead::Standing,
    metrics::Metrics,
    privileges::{Device, Opened},
    proxy::Limits,
    secrets::Secrets,
    tunnel::{PrivateKeys, Tunnel, TunnelError, kernel::Kernel, userspace::Userspace},
    upstream::{Target, Upstream},
};

/// How long requests under way may take at the end.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the gateway ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No configuration for the API.
    #[error("kubernetes configuration: {0}")]
    Kubernetes(#[from] kube::Error),
    /// The WireGuard device could not be opened.
    #[error(transparent)]
    Tunnel(#[from] tunnel::TunnelError),
    /// The tunnel's device could not be configured.
    #[error(transparent)]
    Addresses(#[from] addresses::AddressError),
    /// A socket could not be opened.
    #[error("listen: {0}")]
    Listen(#[from] io::Error),
    /// The tunnel's device is gone.
    #[error("the tunnel device is gone")]
    DeviceGone,
    /// Nobody is left who would cut a partner that is revoked.
    #[error("what follows the API server ended by itself")]
    ControlEnded,
}

/// Runs against the Kubernetes API until `stop`.
pub async fn run(config: Config, opened: Opened, stop: CancellationToken) -> Result<(), Error> {
    let kubernetes = kube::Config::infer().await.map_err(kube::Error::InferConfig)?;
    run_with(config, kubernetes::client(kubernetes)?, opened, stop).await
}

/// The same with a given client.
pub async fn run_with(
    config: Config,
    client: kube::Client,
    opened: Opened,
    stop: CancellationToken,
) -> Result<(), Error> {
    let (change_tx, changes) = mpsc::channel(64);
    let (secret_tx, secrets) = watch::channel(Secrets::default());
    let (words, word_rx) = mpsc::channel(256);
    let partners = config.partners_namespace.clone();
    let feeding = CancellationToken::new();
    let _ends = feeding.clone().drop_guard();
    // Not before there are keys: what was heard long before it is acted on would count as fresh.
    let mut keys_there = secrets.clone();
    let watching = {
        let (client, partners) = (client.clone(), partners.clone());
        async move {
            if keys_there.wait_for(Secrets::is_complete).await.is_ok() {
                kubernetes::partner_connections(client, partners, change_tx).await;
            }
        }
    };
    let certificates = Arc::new(kubernetes::ApiCertificates::new(client.clone()));
    let keys = kubernetes::secrets(client.clone(), config.gateway_namespace.clone(), config.name.clone(), secret_tx);
    let writing = kubernetes::status(client.clone(), partners, word_rx);
    tokio::spawn(feeding.run_until_cancelled_owned(async { tokio::join!(watching, keys, writing) }));
    let alone = if config.lease.is_none() { Standing::Alone } else { Standing::Aside };
    let (holding, standing) = watch::channel(alone);
    let (serving, served) = watch::channel(false);
    let leaving = CancellationToken::new();
    let contending = config.lease.clone().map(|lease| {
        let (config, leaving) = (config.clone(), leaving.clone());
        tokio::spawn(lead::contend(client, config, lease, holding, served, leaving))
    });
    let ended = serve(config, Feeds { changes, secrets, words, certificates, standing, serving }, opened, stop).await;
    // Not before the requests under way have ended: the other takes over at once.
    leaving.cancel();
    if let Some(contending) = contending {
        let _ = contending.await;
    }
    ended
}

/// WireGuard by the device that was opened, and its addresses.
async fn data_plane(
    config: &Config,
    device: Device,
    keys: PrivateKeys,
    metrics: &Arc<Metrics>,
    failed: &CancellationToken,
) -> Result<(Arc<dyn Tunnel>, Addresses), Error> {
    let ports = [config.wg_port, config.wg_second_port];
    let (metrics, failed) = (Arc::clone(metrics), failed.clone());
    match device {
        Device::Tun(tun) => {
            let tunnel = Userspace::open(tun, ports, keys, metrics, failed).await?;
            Ok((Arc::new(tunnel), Addresses::up(std::slice::from_ref(&config.tun_name)).await?))
        }
        Device::Kernel(links) => {
            let links = links.listen(ports).map_err(TunnelError::from)?;
            let addresses = Addresses::up(links.names()).await?;
            Ok((Arc::new(Kernel::open(links, keys, addresses.clone(), metrics, failed).await?), addresses))
        }
    }
}

/// Runs on whatever feeds it until `stop`.
pub async fn serve(
    config: Config,
    mut feeds: Feeds,
    Opened { device, socket, enrolment }: Opened,
    stop: CancellationToken,
) -> Result<(), Error> {
    let metrics = Arc::new(Metrics::default());
    let target = Target {
        template: config.upstream.clone(),
        namespace: config.partners_namespace.clone(),
        domain: config.domain.clone(),
    };
    let limits = Limits {
        body: config.max_body,
        connections: config.max_connections,
        rate: config.max_bytes_per_second,
        header: Duration::from_secs(config.header_seconds),
        stall: Duration::from_secs(config.stall_seconds),
        enrolment: Duration::from_secs(config.enrolment_wait),
        ..Limits::default()
    };
    let namespace = config.partners_namespace.clone();
    let upstream = Upstream::new(target);
    let certificates = Arc::clone(&feeds.certificates);
    let gate = Arc::new(Gate::new(upstream, Arc::clone(&metrics), limits, namespace, certificates));

    // Whatever way this ends, its tasks end with it.
    let ending = stop.child_token();
    let _ends = ending.clone().drop_guard();
    let readiness = Readiness::default();
    let health = health::serve(config.health_addr, Arc::clone(&gate), readiness.clone(), ending.clone());
    let health = tokio::spawn(health);

    let secrets = loop {
        let secrets = feeds.secrets.borrow_and_update().clone();
        if secrets.is_complete() && secrets::install(&gate, &secrets) {
            break secrets;
        }
        let wireguard = config.name.wireguard_secret();
        tracing::info!("waiting for Secrets gateway-tls, gateway-client-tls and {wireguard}");
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            // A closed channel brings no more: wait for the end.
            changed = feeds.secrets.changed() => if changed.is_err() { stop.cancelled().await },
        }
    };

    let failed = CancellationToken::new();
    let keys = secrets.private_keys();
    let (tunnel, addresses) = data_plane(&config, device, keys, &metrics, &failed).await?;
    let backend = tunnel.running().label();
    metrics.backend(backend);
    let listener = socket.listen(serve::BACKLOG)?;
    let enrolment = enrolment.listen(serve::BACKLOG)?;
    let control = Control::new(&config, secrets, Arc::clone(&gate), tunnel, addresses, Arc::clone(&readiness.serving));
    let mut control = tokio::spawn(control.run(feeds, ending.clone()));
    let accepting = tokio::spawn(serve::accept(Arc::clone(&gate), listener, Door::Https, ending.clone()));
    let enrolling = tokio::spawn(serve::accept(Arc::clone(&gate), enrolment, Door::Enrolment, ending.clone()));
    readiness.started.store(true, Ordering::Relaxed);
    tracing::info!(shard = %config.name, device = config.tun_name, backend, port = config.wg_port, domain = config.domain, "gateway is up");

    let result = tokio::select! {
        // First: at the end the others are ready as well.
        biased;
        () = stop.cancelled() => Ok(()),
        () = failed.cancelled() => Err(Error::DeviceGone),
        _ = &mut control => Err(Error::ControlEnded),
        ended = health => Err(ended.map_err(io::Error::other).flatten().err().map_or(Error::DeviceGone, Error::Listen)),
    };
    readiness.started.store(false, Ordering::Relaxed);
    ending.cancel();
    let _ = tokio::join!(accepting, enrolling);
    let drained = async {
        while gate.connections.total() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = timeout(DRAIN, drained).await;
    if !control.is_finished() {
        let _ = control.await;
    }
    result
}
