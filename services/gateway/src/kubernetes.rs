//! The API: PartnerConnections and Secrets watched, the gateway's part of status written.
//!
//! Not kube's `watcher`, which swallows bookmarks: the gateway must know when it last heard anything. A watch is short, and
//! most often the server sends a bookmark shortly before it ends it; one that neither says a word nor ends is wrong though its
//! connection lives, and is answered by a new list.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{
    StreamExt,
    future::{BoxFuture, join_all},
};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::api::{certificates::v1::CertificateSigningRequest, core::v1::Secret};
use kube::{
    Api, Client, Resource,
    api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    client::ConfigExt as _,
    core::DeserializeGuard,
};
use liaison_crds::{GatewayName, PRESHARED_SECRETS, PartnerConnection};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tower::{BoxError, ServiceBuilder};

use crate::{
    enrolment::{self, Answer, Asked, Certificates},
    feeds::{Change, Observed, StatusWrite, Word},
    secrets::{PresharedKey, Secrets, WireGuardPrivateKey},
    tls::KeyMaterial,
};

/// Field manager of what the gateway writes.
pub const FIELD_MANAGER: &str = "liaison-gateway";
/// Server certificate for partners.
pub const SERVER_SECRET: &str = "gateway-tls";
/// Client certificate for InfoPols.
pub const CLIENT_SECRET: &str = "gateway-client-tls";

/// Length of one watch of PartnerConnections, in seconds: a server that lives and says nothing keeps a revocation back no longer than
/// that, and [`SLACK`].
const WATCH: u32 = 10;
/// Length of one watch of a Secret, in seconds.
const WATCH_SECRET: u32 = 50;
/// How much longer than a watch the silence before a new list may be.
const SLACK: Duration = Duration::from_secs(5);
/// Longest time for a list.
const LIST: Duration = Duration::from_secs(30);
/// Objects a page of a list.
const PAGE: u32 = 200;
/// Longest time for a connection to be made, and how long one is silent before it is asked for a sign of life.
const CONNECT: Duration = Duration::from_secs(1);
/// After so long without a sign of life a connection is given up.
const GONE: Duration = Duration::from_secs(3);

/// A client that knows within a few seconds that an API server is gone, and within one that it is back.
///
/// kube's own waits on a connection whose other end is gone without a word until the system gives it up, after a quarter of an hour,
/// and on a new one for half a minute; one that was cut off for a while hears what was said meanwhile only when the server's TCP tries
/// again, which it does ever more rarely. And it tries what failed again by itself, which [`follow`] does.
pub fn client(config: kube::Config) -> Result<Client, kube::Error> {
    if config.proxy_url.is_some() {
        // What is behind a proxy, the proxy knows.
        return Client::try_from(config);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(CONNECT));
    tcp.set_keepalive_interval(Some(CONNECT));
    tcp.set_tcp_user_timeout(Some(GONE));
    // With TLS: a machine may take a connection of which its program does not know.
    let connector = ServiceBuilder::new()
        .map_future(|connecting| -> BoxFuture<'static, Result<_, BoxError>> {
            Box::pin(async { timeout(GONE, connecting).await? })
        })
        .service(config.rustls_https_connector_with_connector(tcp)?);
    let http = HttpClient::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}

/// What a watch tells.
enum Event<K> {
    Listed(Vec<K>),
    Applied(K),
    Deleted(K),
    Heard,
}

/// Passes a word on; false when nobody listens.
type Tell<K> = Box<dyn FnMut(Event<K>) -> BoxFuture<'static, bool> + Send>;

/// Why a watch ended.
#[derive(Debug)]
enum Broken {
    /// Nobody answered, or an API server that has nothing behind it.
    Away(String),
    /// The API server answered that it does not do what it is asked.
    Refused(String),
}

impl Broken {
    fn of(what: &str, error: &kube::Error) -> Self {
        let said = format!("{what}: {error}");
        match error {
            kube::Error::Api(status) => Self::answered(status.code, said),
            kube::Error::SerdeError(_) => Self::Refused(said),
            _ => Self::Away(said),
        }
    }

    fn answered(code: u16, said: String) -> Self {
        if code >= 500 { Self::Away(said) } else { Self::Refused(said) }
    }

    fn away(what: &str) -> Self {
        Self::Away(what.to_owned())
    }

    /// A refusal, unless something was heard.
    fn unless(self, heard: bool) -> Self {
        match self {
            Self::Away(said) if !heard => Self::Refused(said),
            other => other,
        }
    }
}

/// How often in a row a watch has broken, in the one way and in the other.
#[derive(Default)]
struct Breaks {
    refused: u32,
    away: u32,
}

/// Lists and watches for ever. Ends when `tell` says that nobody listens.
///
/// One that is away is asked again within half a second: a revocation made meanwhile is to apply within two seconds of its return,
/// however long it was away. One that refuses is left more and more time.
async fn follow<K>(api: Api<K>, what: String, field_selector: Option<String>, seconds: u32, mut tell: Tell<K>)
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let (mut breaks, mut newest) = (Breaks::default(), 0);
    loop {
        match round(&api, field_selector.as_ref(), seconds, &mut tell, &mut breaks, &mut newest).await {
            Ok(()) => return,
            Err(Broken::Away(reason)) => {
                // Said once, and once a minute or so.
                if breaks.away.is_multiple_of(120) {
                    tracing::warn!(what, reason, "the API server does not answer; asking again");
                }
                breaks = Breaks { away: breaks.away.wrapping_add(1), refused: 0 };
            }
            Err(Broken::Refused(reason)) => {
                tracing::warn!(what, reason, "watch broken; listing again");
                breaks = Breaks { away: 0, refused: (breaks.refused + 1).min(7) };
            }
        }
        // With jitter, so that gateways do not come back in step: up to 0.5 s, or after errors up to 0.2, 0.4 ... 12.8 s.
        let base = if breaks.refused == 0 { 500 } else { 100_u64 << breaks.refused };
        sleep(Duration::from_millis(base / 2 + rand::random_range(0..=base / 2))).await;
    }
}

/// One list and the watches that follow it. `Ok` when nobody listens any more.
async fn round<K>(
    api: &Api<K>,
    field_selector: Option<&String>,
    seconds: u32,
    tell: &mut Tell<K>,
    breaks: &mut Breaks,
    newest: &mut u64,
) -> Result<(), Broken>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut params = ListParams::default().limit(PAGE);
    params.field_selector = field_selector.cloned();
    let mut items = Vec::new();
    let mut version = loop {
        let page = timeout(LIST, api.list(&params)).await.map_err(|_| Broken::away("list: time-out"))?;
        let page = page.map_err(|error| Broken::of("list", &error))?;
        items.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => break page.metadata.resource_version.unwrap_or_default(),
        }
    };
    breaks.away = 0;
    if is_back(&version, newest) {
        tracing::error!(
            "the API server was put back to an earlier state: what was revoked since is to be revoked again"
        );
    }
    if !tell(Event::Listed(items)).await {
        return Ok(());
    }
    let watch = WatchParams {
        field_selector: field_selector.cloned(),
        timeout: Some(seconds),
        bookmarks: true,
        ..WatchParams::default()
    };
    // Who has just answered with a list is there: a watch that never says a word is refused.
    let mut heard = false;
    loop {
        let stream = timeout(LIST, api.watch(&watch, &version))
            .await
            .map_err(|_| Broken::away("watch: time-out").unless(heard))?
            .map_err(|error| Broken::of("watch", &error).unless(heard))?;
        let mut stream = pin!(stream);
        loop {
            let silence = Duration::from_secs(seconds.into()) + SLACK;
            let event = timeout(silence, stream.next()).await.map_err(|_| Broken::away("watch: silence"))?;
            let Some(event) = event else { break };
            let event = event.map_err(|error| Broken::of("watch", &error).unless(heard))?;
            if !matches!(event, WatchEvent::Error(_)) {
                heard = true;
                breaks.refused = 0;
            }
            let (word, at) = match event {
                WatchEvent::Added(k) | WatchEvent::Modified(k) => {
                    let at = k.meta().resource_version.clone();
                    (Event::Applied(k), at)
                }
                WatchEvent::Deleted(k) => {
                    let at = k.meta().resource_version.clone();
                    (Event::Deleted(k), at)
                }
                WatchEvent::Bookmark(b) => (Event::Heard, Some(b.metadata.resource_version)),
                WatchEvent::Error(status) => {
                    return Err(Broken::answered(status.code, format!("watch: {} {}", status.code, status.reason)));
                }
            };
            version = at.unwrap_or(version);
            is_back(&version, newest);
            if !tell(word).await {
                return Ok(());
            }
        }
        // The server ended the watch; without the pause, one that ends each at once would be asked without end.
        sleep(Duration::from_millis(100)).await;
    }
}

/// Whether a resourceVersion is older than one that was seen before, as after a restore; it is the newest from then on.
fn is_back(version: &str, newest: &mut u64) -> bool {
    let Ok(version) = version.parse() else { return false };
    std::mem::replace(newest, version) > version
}

fn observed(guard: DeserializeGuard<PartnerConnection>) -> (String, Observed) {
    match guard.0 {
        Ok(mut object) => {
            object.metadata.managed_fields = None;
            (object.metadata.name.clone().unwrap_or_default(), Ok(Box::new(object)))
        }
        Err(invalid) => (invalid.metadata.name.clone().unwrap_or_default(), Err(invalid.error)),
    }
}

/// Watches PartnerConnections of a namespace.
pub async fn partner_connections(client: Client, namespace: String, changes: mpsc::Sender<Change>) {
    let api: Api<DeserializeGuard<PartnerConnection>> = Api::namespaced(client, &namespace);
    let tell: Tell<_> = Box::new(move |word| {
        let change = match word {
            Event::Listed(items) => Change::Listed(items.into_iter().map(observed).collect()),
            Event::Applied(guard) => {
                let (name, object) = observed(guard);
                Change::Applied(name, object)
            }
            Event::Deleted(guard) => Change::Deleted(observed(guard).0),
            Event::Heard => Change::Heard,
        };
        let changes = changes.clone();
        Box::pin(async move { changes.send(change).await.is_ok() })
    });
    follow(api, "PartnerConnections".to_owned(), None, WATCH, tell).await;
}

/// Watches the gateway's Secrets, by name: its Role gives it these and no other. Of WireGuard keys a shard's own.
pub async fn secrets(client: Client, namespace: String, shard: GatewayName, secrets: watch::Sender<Secrets>) {
    let one = |name: String, take: Take| {
        let api: Api<Secret> = Api::namespaced(client.clone(), &namespace);
        let secrets = secrets.clone();
        let tell: Tell<_> = Box::new(move |word| {
            let found = match word {
                Event::Listed(items) => items,
                Event::Applied(secret) => vec![secret],
                // A deleted Secret takes nothing away: the operator makes it anew.
                Event::Deleted(_) | Event::Heard => Vec::new(),
            };
            for secret in found {
                secrets.send_if_modified(|all| {
                    let before = all.clone();
                    take(all, &secret);
                    *all != before
                });
            }
            Box::pin(std::future::ready(true))
        });
        let selector = format!("metadata.name={name}");
        follow(api, name, Some(selector), WATCH_SECRET, tell)
    };
    let own: [(String, Take); 3] = [
        (SERVER_SECRET.to_owned(), Box::new(|all, secret| all.server = key_material(secret).or(all.server.take()))),
        (CLIENT_SECRET.to_owned(), Box::new(|all, secret| all.client = key_material(secret).or(all.client.take()))),
        (
            shard.wireguard_secret(),
            Box::new(|all, secret| {
                let keys = ["privateKey", "secondPrivateKey"].map(|entry| private_key(secret, entry));
                // One that cannot be read leaves what is there.
                if keys.iter().any(Option::is_some) {
                    all.wireguard = keys;
                }
            }),
        ),
    ];
    let preshared = PRESHARED_SECRETS.into_iter().enumerate().map(|(index, name)| -> (String, Take) {
        let take = move |all: &mut Secrets, secret: &Secret| {
            if let Some(entries) = all.preshared.get_mut(index) {
                *entries = preshared_keys(secret);
            }
        };
        (name.to_owned(), Box::new(take))
    });
    join_all(own.into_iter().chain(preshared).map(|(name, take)| one(name, take))).await;
}

/// What is taken of a Secret.
type Take = Box<dyn Fn(&mut Secrets, &Secret) + Send>;

fn field(secret: &Secret, key: &str) -> Option<Vec<u8>> {
    secret.data.as_ref()?.get(key).map(|bytes| bytes.0.clone()).filter(|bytes| !bytes.is_empty())
}

fn key_material(secret: &Secret) -> Option<KeyMaterial> {
    Some(KeyMaterial { chain: field(secret, "tls.crt")?, key: field(secret, "tls.key")?, ca: field(secret, "ca.crt")? })
}

/// What cannot be read is left out: its WireGuard key is not accepted then.
fn preshared_keys(secret: &Secret) -> BTreeMap<String, PresharedKey> {
    let entries = secret.data.iter().flatten();
    entries
        .filter_map(|(name, bytes)| {
            let key = STANDARD.decode(bytes.0.trim_ascii()).ok()?.try_into().ok()?;
            Some((name.clone(), PresharedKey(key)))
        })
        .collect()
}

fn private_key(secret: &Secret, entry: &str) -> Option<WireGuardPrivateKey> {
    let text = field(secret, entry)?;
    Some(WireGuardPrivateKey(STANDARD.decode(text.trim_ascii()).ok()?.try_into().ok()?))
}

/// Partners' own requests for certificates, as `CertificateSigningRequest`s that the operator answers.
pub struct ApiCertificates(Api<CertificateSigningRequest>);

impl ApiCertificates {
    /// By this client.
    pub fn new(client: Client) -> Self {
        Self(Api::all(client))
    }

    async fn get_or_make(&self, asked: &Asked) -> Result<CertificateSigningRequest, kube::Error> {
        let name = asked.name();
        if let Some(live) = self.0.get_opt(&name).await? {
            return Ok(live);
        }
        match self.0.create(&PostParams::default(), &asked.object()).await {
            // Another process of the gateway was first.
            Err(kube::Error::Api(status)) if status.is_already_exists() => self.0.get(&name).await,
            other => other,
        }
    }
}

impl Certificates for ApiCertificates {
    fn ask<'a>(&'a self, asked: &'a Asked) -> BoxFuture<'a, Result<Answer, String>> {
        Box::pin(async move {
            match timeout(LIST, self.get_or_make(asked)).await {
                Ok(Ok(live)) => Ok(enrolment::answer(&live)),
                // The API server reads the request too, and verifies its signature.
                Ok(Err(kube::Error::Api(status))) if status.code == 422 => {
                    Ok(Answer::Denied("RequestInvalid".to_owned()))
                }
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("time-out".to_owned()),
            }
        })
    }
}

/// Writes what the gateway has to say in status, one at a time, by server-side apply. What fails is due again later.
///
/// Conditions, and of each shard acknowledgements and keys in use, have a field manager each: an apply takes back what its manager said
/// before and leaves out now. A shard's name begins with `gateway`, so no two of the managers are one.
pub async fn status(client: Client, namespace: String, mut words: mpsc::Receiver<StatusWrite>) {
    let api: Api<PartnerConnection> = Api::namespaced(client, &namespace);
    while let Some(StatusWrite { partner, word }) = words.recv().await {
        let name = partner.as_str();
        let (status, manager) = match &word {
            Word::Connected(condition) => (json!({"conditions": [condition]}), FIELD_MANAGER.to_owned()),
            Word::Revoked(word) => (json!({"gateways": [word]}), format!("{FIELD_MANAGER}-{}", word.name)),
            Word::InUse(word) => (json!({"gateways": [word]}), format!("{FIELD_MANAGER}-key-{}", word.name)),
        };
        let patch = json!({
            "apiVersion": PartnerConnection::api_version(&()),
            "kind": PartnerConnection::kind(&()),
            "metadata": {"name": name},
            "status": status,
        });
        let params = PatchParams::apply(&manager).force();
        let patch = Patch::Apply(&patch);
        match timeout(LIST, api.patch_status(name, &params, &patch)).await {
            Ok(Ok(_)) => tracing::info!(partner = name, %word, "status written"),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
            Ok(Err(error)) => tracing::warn!(partner = name, %word, %error, "status not written"),
            Err(_) => tracing::warn!(partner = name, %word, "status not written: time-out"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use http_body_util::{Full, StreamBody, combinators::BoxBody};
    use hyper::{
        Request, Response,
        body::{Bytes, Frame},
    };
    use kube::client::Body;
    use tokio::sync::Mutex;

    use super::*;

    #[test]
    fn an_older_version_is_noticed_once() {
        let mut newest = 0;
        let seen = ["5", "7", "7", "", "6", "6", "8"].map(|version| is_back(version, &mut newest));
        assert_eq!(seen, [false, false, false, false, true, false, false]);
    }

    #[tokio::test]
    async fn a_watch_that_lives_and_says_nothing_is_left_for_a_new_list() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let server = tower::service_fn(move |request: Request<Body>| {
            let noted = Arc::clone(&noted);
            async move {
                let watch = request.uri().query().unwrap_or_default().contains("watch=true");
                noted.lock().await.push(watch);
                let silence = futures::stream::pending::<Result<Frame<Bytes>, Infallible>>();
                let list = json!({"apiVersion": "v1", "kind": "SecretList", "metadata": {"resourceVersion": "1"}, "items": []});
                let body = if watch {
                    BoxBody::new(StreamBody::new(silence))
                } else {
                    BoxBody::new(Full::from(list.to_string()))
                };
                Ok::<_, Infallible>(Response::new(body))
            }
        });
        let api: Api<Secret> = Api::namespaced(Client::new(server, "n"), "n");
        let mut lists = 0;
        // Of no length: it is the slack that is waited for.
        let told = Box::new(move |_| -> BoxFuture<'static, bool> {
            lists += 1;
            Box::pin(std::future::ready(lists < 2))
        });
        follow(api, "Secrets".to_owned(), None, 0, told).await;
        assert_eq!(*asked.lock().await, [false, true, false], "a list, a watch, a list");
    }
}
