//! Wiring: health, leader election, the installation's own certificates, and the two controllers.
//!
//! One malformed object is one object's problem: every watch of ours decodes into a guard. Reconciles are bounded, and each
//! failing object waits on its own.

use std::{
    collections::HashMap,
    io::Write,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    certificates::v1::CertificateSigningRequest,
    coordination::v1::Lease,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        WatchStreamExt, controller, reflector,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use liaison_crds::{
    PARTNER_LABEL, PartnerConnection, SharingAgreement,
    leader::{Candidate, Pace},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::{
    apply,
    ca::Authority,
    context::Context,
    crl,
    health::{self, Health},
    install,
    metrics::Metrics,
    partner_connection, pool, rotate,
    settings::{Cli, Command, Settings},
    sharing_agreement, signing,
};

type Connection = DeserializeGuard<PartnerConnection>;
type Agreement = DeserializeGuard<SharingAgreement>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How the lead is held.
const PACE: Pace = Pace { duration: Duration::from_secs(15), period: Duration::from_secs(3) };
/// A leader that has not renewed for this long ends its process, before another can take over: what it was doing is idempotent, and
/// the next leader's writes are not mixed with its own for longer than one request.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often the installation's own certificates are looked at.
const INSTALL_PERIOD: Duration = Duration::from_mins(5);
/// How often it is looked whether anybody waits for credentials, while replicas are left for later.
const LEFT_PERIOD: Duration = Duration::from_secs(1);
/// How often slots are counted, and those freed whose quarantine is over.
const POOL_PERIOD: Duration = Duration::from_mins(5);
/// The same while a rotation waits for somebody.
const ROTATION_PERIOD: Duration = Duration::from_secs(30);
/// Shorter than the idle limits of load balancers before API servers, which would freeze a watch.
const WATCH_SECONDS: u32 = 200;

/// The whole program.
pub async fn main(cli: Cli) -> ExitCode {
    let settings = match cli.command {
        Command::Crds => return crds(),
        Command::Run(settings) => *settings,
    };
    tracing_subscriber::fmt()
        .json()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    // The one TLS provider; a second call finds it there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "stopped");
            ExitCode::FAILURE
        }
    }
}

fn crds() -> ExitCode {
    match liaison_crds::schema::all() {
        Ok(all) => {
            let text: String = all.iter().flat_map(|(_, body)| ["---\n", body, "\n"]).collect();
            match std::io::stdout().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> Result<(), Failure> {
    let client = Client::try_default().await?;
    let metrics = Arc::new(Metrics::default());
    let ready = Arc::new(AtomicBool::new(false));
    let health = health::serve(settings.health_addr, Health { ready: ready.clone(), metrics: metrics.clone() });
    let leases: Api<Lease> = Api::namespaced(client.clone(), &settings.system_namespace);
    let mut candidate = Candidate::new(leases, apply::MANAGER, &settings.pod_name, PACE);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let work = lead_and_work(&client, &settings, &metrics, &ready, &mut candidate);
    let ended = tokio::select! {
        ended = work => ended,
        ended = health => ended.map_err(Into::into),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    // What was under way has been dropped; it is idempotent, and the next leader goes on with it.
    match tokio::time::timeout(PACE.period, candidate.release()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "lease not released; the next leader waits for it to run out"),
        Err(_) => tracing::warn!("lease not released in time; the next leader waits for it to run out"),
    }
    ended
}

async fn lead_and_work(
    client: &Client,
    settings: &Settings,
    metrics: &Arc<Metrics>,
    ready: &AtomicBool,
    candidate: &mut Candidate,
) -> Result<(), Failure> {
    tracing::info!(lease = apply::MANAGER, me = settings.pod_name, "waiting for the lead");
    loop {
        match candidate.step().await {
            Ok(true) => break,
            Ok(false) => ready.store(true, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "the lease cannot be read"),
        }
        tokio::time::sleep(PACE.period).await;
    }
    metrics.leader.set(1);
    tracing::info!("leading");
    let keep = async {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(PACE.period).await;
            match tokio::time::timeout(PACE.period, candidate.step()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return "another leads now",
                Ok(Err(error)) => tracing::warn!(%error, "the lease could not be renewed"),
                Err(_) => tracing::warn!("renewing the lease took too long"),
            }
            if renewed.elapsed() >= DEADLINE {
                return "the lease could not be renewed in time";
            }
        }
    };
    tokio::select! {
        lost = keep => Err(lost.into()),
        ended = work(client, settings, metrics, ready) => ended,
    }
}

/// What the leader does.
async fn work(client: &Client, settings: &Settings, metrics: &Arc<Metrics>, ready: &AtomicBool) -> Result<(), Failure> {
    let installed = loop {
        match install::ensure(client, settings, jiff::Timestamp::now()).await {
            Ok(installed) => break installed,
            Err(error) => {
                tracing::warn!(%error, "the installation's own Secrets are not there yet");
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        }
    };
    tracing::info!("the installation's own certificates are there");
    let ns = settings.partners_namespace.as_str();
    let (connections, connections_writer) = reflector::store::<Connection>();
    let (agreements, agreements_writer) = reflector::store::<Agreement>();
    let mut context = Context::new(client.clone(), settings.clone(), installed, metrics.clone())?;
    context.connections = Some(connections.clone());
    let context = Arc::new(context);
    let config = controller::Config::default().concurrency(settings.concurrency).debounce(Duration::from_millis(100));

    let (respecified, agreements_of) = mpsc::unbounded_channel();
    let of_spec = tell_agreements(watched(Api::namespaced(client.clone(), ns)), respecified);
    let connection_queue = stream::select_all([
        own(of_spec, connections_writer, &context),
        of_agreements(Api::namespaced(client.clone(), ns), connections.clone(), ns),
        labelled::<Deployment>(Api::namespaced(client.clone(), ns), ns, &context),
        labelled::<Job>(Api::namespaced(client.clone(), &settings.system_namespace), ns, &context),
        // A Job speaks through its pod's termination message.
        labelled::<Pod>(Api::namespaced(client.clone(), &settings.system_namespace), ns, &context),
        // A partner asks for a certificate itself.
        labelled::<CertificateSigningRequest>(Api::all(client.clone()), ns, &context),
        of_authority(context.authorities(), connections.clone()),
        of_left(&context, ns),
    ]);
    let agreement_queue = stream::select_all([
        own(watched(Api::namespaced(client.clone(), ns)), agreements_writer, &context),
        of_connections(agreements_of, ns),
    ]);
    let on_connection_error = |object: Arc<Connection>, error: &partner_connection::Error, ctx: Arc<Context>| {
        partner_connection::on_error(&object, error, &ctx)
    };
    let on_agreement_error = |object: Arc<Agreement>, error: &partner_connection::Error, ctx: Arc<Context>| {
        sharing_agreement::on_error(&object, error, &ctx)
    };
    let connection_controller = controller::applier(
        |object, ctx| Box::pin(partner_connection::reconcile(object, ctx)),
        on_connection_error,
        context.clone(),
        connections,
        connection_queue,
        config.clone(),
    )
    .for_each(|result| async move { log(result) });
    let agreement_controller = controller::applier(
        |object, ctx| Box::pin(sharing_agreement::reconcile(object, ctx)),
        on_agreement_error,
        context.clone(),
        agreements,
        agreement_queue,
        config,
    )
    .for_each(|result| async move { log(result) });
    let own_certificates = keep_authority(client, settings, &context);
    let slots = async {
        loop {
            match pool::sweep(&context.claims, &context.pools, settings.slot_quarantine(), context.now()).await {
                Ok(count) => metrics.count_slots(count),
                Err(error) => tracing::warn!(%error, "the tunnel pool could not be looked at"),
            }
            tokio::time::sleep(POOL_PERIOD).await;
        }
    };
    let leases = watcher(Api::namespaced(client.clone(), &settings.system_namespace), watching().labels(PARTNER_LABEL));
    let claims = context.claims.follow(leases.default_backoff());
    let signers = context.signers();
    let signing = signing::run(client, &settings.system_namespace, &signers, jiff::Timestamp::now);
    ready.store(true, Ordering::Relaxed);
    tokio::select! {
        () = connection_controller => Err("the watch of connections ended".into()),
        () = agreement_controller => Err("the watch of agreements ended".into()),
        () = own_certificates => Ok(()),
        () = slots => Ok(()),
        () = claims => Err("the watch of claims ended".into()),
        () = signing => Err("the watch of statements ended".into()),
    }
}

/// Rotates the CAs, and keeps the installation's own certificates; looks when somebody asks, and now and then.
async fn keep_authority(client: &Client, settings: &Settings, context: &Context) {
    let maps: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(client.clone(), &settings.system_namespace);
    let mut asked = std::pin::pin!(
        watcher(maps, watching().fields(&format!("metadata.name={}", rotate::NAME)))
            .default_backoff()
            .touched_objects()
    );
    loop {
        let period = match Box::pin(rotate::visit(client, settings, &context.metrics, jiff::Timestamp::now())).await {
            Ok(visited) if visited.waiting => ROTATION_PERIOD,
            Ok(_) => INSTALL_PERIOD,
            Err(error) => {
                tracing::warn!(%error, "the authority's CAs could not be looked at");
                ROTATION_PERIOD
            }
        };
        if let Err(error) = crl::publish(client, settings, context.now()).await {
            tracing::warn!(%error, "the revocation lists could not be published");
        }
        match install::ensure(client, settings, jiff::Timestamp::now()).await {
            Ok(installed) => context.take(installed),
            Err(error) => tracing::warn!(%error, "the installation's own certificates could not be checked"),
        }
        let end = tokio::time::sleep(period);
        tokio::select! {
            () = end => {}
            // What is written there by this very visit is looked at once more, and not written again.
            Some(_) = asked.next() => {}
        }
    }
}

/// What starts a reconcile.
type Queue<K> = std::pin::Pin<Box<dyn Stream<Item = Result<ObjectRef<K>, watcher::Error>> + Send>>;

fn watching() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// What a watch of objects tells.
type Events<K> = std::pin::Pin<Box<dyn Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send>>;

fn watched<K>(api: Api<K>) -> Events<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    Box::pin(watcher(api, watching()).default_backoff().modify(|object| object.managed_fields_mut().clear()))
}

/// Every change of the objects themselves but those that a visit made, and all of them for their store.
fn own<K>(events: Events<K>, writer: reflector::store::Writer<K>, context: &Arc<Context>) -> Queue<K>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let context = context.clone();
    Box::pin(events.reflect(writer).applied_objects().try_filter_map(move |object| {
        let found = (!context.written.is(&object)).then(|| ObjectRef::from_obj(&object));
        async move { Ok(found) }
    }))
}

/// Of what a watch tells, every object when it comes, when its spec changes and when it goes, but not when somebody writes its status.
#[derive(Default)]
struct Specs(HashMap<Option<String>, Option<i64>>);

impl Specs {
    fn changed<'a, K: Resource>(&mut self, event: &'a watcher::Event<K>) -> Option<&'a K> {
        match event {
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                // The API server counts a deletion that has begun as a generation too.
                let (uid, generation) = (object.meta().uid.clone(), object.meta().generation);
                (self.0.insert(uid, generation) != Some(generation)).then_some(object)
            }
            watcher::Event::Delete(object) => {
                self.0.remove(&object.meta().uid);
                Some(object)
            }
            watcher::Event::Init | watcher::Event::InitDone => None,
        }
    }
}

/// Every agreement that changes, for all connections that name it.
fn of_agreements(api: Api<Agreement>, connections: Store<Connection>, ns: &str) -> Queue<Connection> {
    let ns = ns.to_owned();
    let mut specs = Specs::default();
    let changed = watched(api).try_filter_map(move |event| {
        std::future::ready(Ok(specs.changed(&event).map(|agreement| agreement.meta().name.clone())))
    });
    Box::pin(
        changed
            .map_ok(move |name| {
                let named: Vec<_> = connections
                    .state()
                    .iter()
                    .filter(|guard| guard.0.as_ref().is_ok_and(|c| Some(&c.spec.agreement_ref.name) == name.as_ref()))
                    .map(|guard| Ok(ObjectRef::new(guard.meta().name.as_deref().unwrap_or_default()).within(&ns)))
                    .collect();
                stream::iter(named)
            })
            .try_flatten(),
    )
}

/// Every connection, when what signs or what is trusted is another.
fn of_authority(
    authorities: tokio::sync::watch::Receiver<Arc<Authority>>,
    connections: Store<Connection>,
) -> Queue<Connection> {
    let changes = stream::unfold(authorities, |mut authorities| async move {
        authorities.changed().await.ok()?;
        Some(((), authorities))
    });
    Box::pin(changes.flat_map(move |()| {
        let all: Vec<_> = connections.state().iter().map(|guard| Ok(ObjectRef::from_obj(guard.as_ref()))).collect();
        stream::iter(all)
    }))
}

/// Those whose replica was left for later, once nobody waits for credentials any more.
fn of_left(context: &Arc<Context>, ns: &str) -> Queue<Connection> {
    let (ns, context) = (ns.to_owned(), context.clone());
    let looks = stream::repeat(()).then(|()| tokio::time::sleep(LEFT_PERIOD));
    Box::pin(looks.flat_map(move |()| {
        let left: Vec<_> = context.take_left().iter().map(|partner| Ok(ObjectRef::new(partner).within(&ns))).collect();
        stream::iter(left)
    }))
}

/// Passes on what the watch of connections tells, and the name of each one's agreement when its spec changes.
fn tell_agreements(events: Events<Connection>, names: mpsc::UnboundedSender<String>) -> Events<Connection> {
    let mut specs = Specs::default();
    Box::pin(events.inspect_ok(move |event| {
        if let Some(Ok(connection)) = specs.changed(event).map(|guard| &guard.0) {
            // Nobody listens any more only where all ends.
            let _ = names.send(connection.spec.agreement_ref.name.clone());
        }
    }))
}

/// Every connection whose spec changes, for the agreement that it names.
fn of_connections(mut names: mpsc::UnboundedReceiver<String>, ns: &str) -> Queue<Agreement> {
    let ns = ns.to_owned();
    let names = stream::poll_fn(move |polled| names.poll_recv(polled));
    Box::pin(names.map(move |name| Ok(ObjectRef::new(&name).within(&ns))))
}

/// Every change of an object of ours that bears a partner's label, by its metadata alone, but those that a visit made.
fn labelled<K>(api: Api<PartialObjectMeta<K>>, ns: &str, context: &Arc<Context>) -> Queue<Connection>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let (ns, context) = (ns.to_owned(), context.clone());
    let stream = watcher(api, watching().labels(PARTNER_LABEL)).default_backoff().touched_objects();
    Box::pin(stream.try_filter_map(move |object| {
        let partner = object.labels().get(PARTNER_LABEL).filter(|_| !context.written.is(&object));
        let found = partner.map(|partner| ObjectRef::new(partner).within(&ns));
        async move { Ok(found) }
    }))
}

fn log<K, E>(result: Result<(ObjectRef<K>, controller::Action), controller::Error<E, watcher::Error>>)
where
    K: Resource,
    K::DynamicType: std::fmt::Debug + Clone + Eq + std::hash::Hash,
    E: std::error::Error + 'static,
{
    match result {
        // Failed reconciles are logged with their wait; an object that is gone needs nothing.
        Ok(_) | Err(controller::Error::ReconcilerFailed(..) | controller::Error::ObjectNotFound(_)) => {}
        Err(error) => tracing::warn!(%error, "watch"),
    }
}
