//! The control loop before a device that fails by half, and beside a process that it took over from. Needs root and iproute2.

// Clippy takes only functions marked #[test] for tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use clap::Parser as _;
use futures::future::{BoxFuture, ready};
use liaison_gateway::{
    addresses::Addresses,
    config::Config,
    control::Control,
    feeds::{Change, Feeds, StatusWrite, Word},
    gate::Gate,
    lead::Standing,
    metrics::Metrics,
    proxy::Limits,
    secrets::{PresharedKey, Secrets},
    state::WireGuardKey,
    tunnel::{PeerStats, PrivateKeys, Running, Tunnel, TunnelError},
    upstream::{Target, Upstream},
};
use serde_json::{Value, json};
use support::{DOMAIN, Namespace, ca::Ca, gateway::Nobody, partner::Partner};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// A device that has each peer that it was asked to have, and while it `fails` says that it has not.
#[derive(Default)]
struct Device {
    peers: Mutex<BTreeSet<WireGuardKey>>,
    fails: AtomicBool,
    looked: AtomicUsize,
}

impl Device {
    fn has(&self) -> usize {
        self.peers.lock().unwrap().len()
    }
}

impl Tunnel for Device {
    fn add(
        &self,
        key: WireGuardKey,
        _: Option<PresharedKey>,
        _: Vec<IpAddr>,
    ) -> BoxFuture<'_, Result<(), TunnelError>> {
        self.peers.lock().unwrap().insert(key);
        let failed = self.fails.load(Ordering::Relaxed);
        Box::pin(ready(if failed { Err(std::io::Error::other("the second listener").into()) } else { Ok(()) }))
    }

    fn remove(&self, key: WireGuardKey) -> BoxFuture<'_, Result<(), TunnelError>> {
        self.peers.lock().unwrap().remove(&key);
        Box::pin(ready(Ok(())))
    }

    fn hand_over(&self, _: WireGuardKey, _: WireGuardKey, _: Vec<IpAddr>) -> BoxFuture<'_, Result<(), TunnelError>> {
        Box::pin(ready(Ok(())))
    }

    fn reach(&self, _: WireGuardKey, _: SocketAddr) -> BoxFuture<'_, Result<(), TunnelError>> {
        Box::pin(ready(Ok(())))
    }

    fn peers(&self) -> BoxFuture<'_, Result<Vec<PeerStats>, TunnelError>> {
        self.looked.fetch_add(1, Ordering::Relaxed);
        let stats = |key: &WireGuardKey| PeerStats {
            key: *key,
            last_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
            endpoint: None,
            session: None,
        };
        Box::pin(ready(Ok(self.peers.lock().unwrap().iter().map(stats).collect())))
    }

    fn set_private_keys(&self, _: PrivateKeys) -> BoxFuture<'_, Result<(), TunnelError>> {
        Box::pin(ready(Ok(())))
    }

    fn compare(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    fn running(&self) -> Running {
        Running::Userspace
    }

    fn by(&self, _: &[IpAddr]) -> Option<usize> {
        None
    }
}

/// A control loop that runs, and what it is fed by.
struct Stage {
    device: Arc<Device>,
    changes: mpsc::Sender<Change>,
    standing: watch::Sender<Standing>,
    serving: watch::Receiver<bool>,
    words: mpsc::Receiver<StatusWrite>,
    _secrets: watch::Sender<Secrets>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Stage {
    async fn new(standing: Standing) -> Self {
        let config = Config::parse_from(["liaison-gateway"]);
        let target = Target { template: config.upstream.clone(), namespace: "n".to_owned(), domain: DOMAIN.to_owned() };
        let gate = Arc::new(Gate::new(
            Upstream::new(target),
            Arc::new(Metrics::default()),
            Limits::default(),
            "n".to_owned(),
            Arc::new(Nobody),
        ));
        let addresses = Addresses::up(&["lo".to_owned()]).await.unwrap();
        let device = Arc::new(Device::default());
        let (own, serving) = (Secrets::default(), Arc::default());
        let control = Control::new(&config, own.clone(), gate, Arc::clone(&device), addresses, serving);
        let (changes, change_rx) = mpsc::channel(8);
        let (standing, standing_rx) = watch::channel(standing);
        let (serving_tx, serving) = watch::channel(false);
        let (secrets, secret_rx) = watch::channel(own);
        let (word_tx, words) = mpsc::channel(64);
        let feeds = Feeds {
            changes: change_rx,
            secrets: secret_rx,
            words: word_tx,
            certificates: Arc::new(Nobody),
            standing: standing_rx,
            serving: serving_tx,
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(control.run(feeds, stop.clone()));
        Self { device, changes, standing, serving, words, _secrets: secrets, stop, running }
    }

    async fn list(&self, object: &Value) {
        let object = serde_json::from_value(object.clone()).map(Box::new).map_err(|error| error.to_string());
        self.changes.send(Change::Listed(vec![("a".to_owned(), object)])).await.unwrap();
    }

    async fn until(&self, what: &str, holds: impl Fn(&Device) -> bool) {
        let waiting = async {
            while !holds(&self.device) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(30), waiting).await.is_ok(), "{what}");
    }

    /// The next word of a revocation.
    async fn acknowledged(&mut self) {
        let waiting = async { while !matches!(self.words.recv().await.unwrap().word, Word::Revoked(_)) {} };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

/// Runs it in a network namespace, with a partner as it is granted and as it is revoked.
fn run(test: impl AsyncFnOnce(Value, Value) + Send) {
    let partner = Partner::new(&Ca::new(), "a", 1, None::<&Namespace>);
    let granted = partner.granted(&support::gateway::public_key(partner.private_key()));
    let mut revoked = granted.clone();
    revoked["spec"]["revocation"] = json!({"revoked": true});
    revoked["metadata"]["generation"] = json!(2);
    Namespace::new("x").within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(granted, revoked));
    });
}

#[test]
fn i6_a_peer_that_was_added_by_half_goes_when_it_is_revoked() {
    run(async |granted, revoked| {
        let mut stage = Stage::new(Standing::Alone).await;
        stage.device.fails.store(true, Ordering::Relaxed);
        stage.list(&granted).await;
        stage.until("the device has it", |device| device.has() == 1).await;
        stage.list(&revoked).await;
        stage.until("it is gone", |device| device.has() == 0).await;
        stage.acknowledged().await;
        stage.end().await;
    });
}

#[test]
fn i6_no_revocation_is_acknowledged_while_one_that_was_overtaken_may_serve() {
    run(async |granted, revoked| {
        let mut stage = Stage::new(Standing::Serves).await;
        stage.list(&granted).await;
        stage.until("it is granted", |device| device.has() == 1).await;
        stage.list(&revoked).await;
        stage.until("it is gone here", |device| device.has() == 0).await;
        let looked = stage.device.looked.load(Ordering::Relaxed);
        stage.until("four looks", |device| device.looked.load(Ordering::Relaxed) > looked + 4).await;
        while let Ok(said) = stage.words.try_recv() {
            assert!(!matches!(said.word, Word::Revoked(_)), "{said:?}");
        }
        stage.standing.send_replace(Standing::Alone);
        stage.acknowledged().await;

        // That it no longer serves is said when its peers are gone.
        stage.list(&granted).await;
        assert!(*stage.serving.borrow());
        stage.standing.send_replace(Standing::Aside);
        stage.serving.wait_for(|serving| !serving).await.unwrap();
        assert_eq!(stage.device.has(), 0);
        stage.end().await;
    });
}
