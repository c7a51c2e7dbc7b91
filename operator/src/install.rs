//! What the installation needs before any partner: the CA, and the certificates of Liaison's own servers and roles.
//!
//! Secrets by plain create (409 = another made it first, and that one counts); issued again at two thirds of their life by
//! replace with the resourceVersion. Nothing secret is logged.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use liaison_crds::GatewayName;

use crate::{
    apply, authorities,
    ca::{self, Authority, KeyPem, SERVER_DAYS, Signer, Subject},
    gateway_keys::{self, Gateways},
    settings::Settings,
};

/// Digest of what a certificate was issued for.
const SUBJECT: &str = "federation.csc-scc.gc.ca/subject";

/// The installation could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// From the API server.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// From the CA.
    #[error(transparent)]
    Ca(#[from] ca::Error),
    /// A Secret that is there but unusable.
    #[error("secret '{name}' has no usable `{key}`; restore it from a backup, or delete it to have it made anew")]
    Broken {
        /// Secret.
        name: String,
        /// Key in it.
        key: &'static str,
    },
    /// A shard of the gateway whose partners use a listener that has no endpoint any more.
    #[error("partners use the second listener of shard '{0}': it must keep its `gateway.shards.{0}.secondEndpoint`")]
    NoSecondEndpoint(GatewayName),
}

/// What every reconcile needs of it.
#[derive(Debug)]
pub struct Installed {
    /// The issuing CA.
    pub authority: Arc<Authority>,
    /// What partners are told of each shard of the gateway.
    pub gateways: Arc<Gateways>,
    /// What signs statements.
    pub signer: Arc<Signer>,
}

/// The Secret of the key that signs statements. Nothing mounts it, and no account but the operator's may read it.
pub const SIGNING: &str = "statement-signing";

/// Makes or checks everything; does nothing where all is there.
pub async fn ensure(client: &Client, settings: &Settings, now: Timestamp) -> Result<Installed, Error> {
    let system: Api<Secret> = Api::namespaced(client.clone(), &settings.system_namespace);
    let gateway: Api<Secret> = Api::namespaced(client.clone(), &settings.gateway_namespace);
    let authority = authorities::ensure(&system, &settings.domain, now).await?.authority()?;
    for (in_gateway, name, subject) in subjects(settings) {
        let api = if in_gateway { &gateway } else { &system };
        ensure_tls(
            api,
            &Wanted { name: name.to_owned(), tls_type: true, subject, ..Wanted::default() },
            &authority,
            now,
        )
        .await?;
    }
    let told = gateway_keys::ensure(client, settings).await?;
    let signer = ensure_signer(&system, settings, &authority, now).await?;
    Ok(Installed { authority: Arc::new(authority), gateways: Arc::new(told), signer: Arc::new(signer) })
}

/// The key that signs statements: digitalSignature, and no use in TLS.
async fn ensure_signer(
    system: &Api<Secret>,
    settings: &Settings,
    authority: &Authority,
    now: Timestamp,
) -> Result<Signer, Error> {
    let subject = Subject {
        common_name: "statements".to_owned(),
        uris: vec![format!("spiffe://{}/statements", settings.domain)],
        days: SERVER_DAYS,
        ..Subject::default()
    };
    let wanted = Wanted { name: SIGNING.to_owned(), tls_type: true, subject, ..Wanted::default() };
    let secret = ensure_tls(system, &wanted, authority, now).await?;
    let broken = |key| Error::Broken { name: SIGNING.to_owned(), key };
    let chain = text(&secret, "tls.crt").ok_or_else(|| broken("tls.crt"))?;
    let key = text(&secret, "tls.key").ok_or_else(|| broken("tls.key"))?;
    Ok(Signer::load(&chain, &KeyPem(key))?)
}

/// Whether it is the gateway's, the Secret's name, and what the certificate says.
fn subjects(settings: &Settings) -> Vec<(bool, &'static str, Subject)> {
    let Settings { domain, system_namespace: ns, .. } = settings;
    let spiffe = |path: &str| vec![format!("spiffe://{domain}/{path}")];
    let database = |name: &'static str| {
        let dns = vec![
            name.to_owned(),
            format!("{name}.{ns}"),
            format!("{name}.{ns}.svc"),
            format!("{name}.{ns}.svc.cluster.local"),
        ];
        Subject {
            common_name: name.to_owned(),
            dns,
            uris: spiffe(name),
            server: true,
            client: false,
            days: SERVER_DAYS,
        }
    };
    let role = |role: &str| Subject {
        common_name: role.to_owned(),
        dns: vec![],
        uris: spiffe(&format!("role/{role}")),
        server: false,
        client: true,
        days: SERVER_DAYS,
    };
    let gateway_server = Subject {
        common_name: format!("*.{domain}"),
        dns: vec![format!("*.{domain}")],
        uris: spiffe("gateway"),
        server: true,
        client: false,
        days: SERVER_DAYS,
    };
    let gateway_client = Subject {
        common_name: "gateway".to_owned(),
        dns: vec![],
        uris: spiffe("gateway"),
        server: false,
        client: true,
        days: SERVER_DAYS,
    };
    vec![
        (false, "hub-tls", database("hub")),
        (false, "store-tls", database("store")),
        (false, "oms-tls", role("liaison_oms")),
        (false, "sync-tls", role("liaison_sync")),
        (false, "admin-tls", role("postgres")),
        (true, "gateway-tls", gateway_server),
        (true, "gateway-client-tls", gateway_client),
    ]
}

/// A Secret that holds a certificate, its key, the root, and perhaps more.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Name.
    pub name: String,
    /// Whether the Secret is of type kubernetes.io/tls.
    pub tls_type: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Owner, in the same namespace.
    pub owner: Option<OwnerReference>,
    /// Further keys, set when the Secret is made and kept ever after.
    pub first: BTreeMap<String, String>,
    /// What the certificate says.
    pub subject: Subject,
}

impl Default for Subject {
    fn default() -> Self {
        Self {
            common_name: String::new(),
            dns: vec![],
            uris: vec![],
            server: false,
            client: false,
            days: ca::LEAF_DAYS,
        }
    }
}

/// Makes the Secret, or issues its certificate again when that is due, or does nothing.
pub async fn ensure_tls(
    api: &Api<Secret>,
    wanted: &Wanted,
    authority: &Authority,
    now: Timestamp,
) -> Result<Secret, Error> {
    if let Some(live) = api.get_opt(&wanted.name).await? {
        return renew(api, live, wanted, authority, now).await;
    }
    make_tls(api, wanted, authority, now).await
}

/// The same for a Secret that is hardly there yet: it is not looked for first.
pub async fn make_tls(
    api: &Api<Secret>,
    wanted: &Wanted,
    authority: &Authority,
    now: Timestamp,
) -> Result<Secret, Error> {
    let made = fill(Secret::default(), wanted, authority, now)?;
    let (live, made_now) = apply::create_once(api, &made).await?;
    if made_now { Ok(live) } else { renew(api, live, wanted, authority, now).await }
}

async fn renew(
    api: &Api<Secret>,
    live: Secret,
    wanted: &Wanted,
    authority: &Authority,
    now: Timestamp,
) -> Result<Secret, Error> {
    let chain = text(&live, "tls.crt").unwrap_or_default();
    let good = !authority.is_due(&chain, now)
        && text(&live, "tls.key").is_some()
        && live.annotations().get(SUBJECT) == Some(&wanted.subject.fingerprint());
    let trusts = text(&live, "ca.crt").as_deref() == Some(authority.bundle.as_str());
    let rechained = authority.rechain(&chain).filter(|_| good);
    if good && trusts && rechained.is_none() {
        return Ok(live);
    }
    // The resourceVersion stays in it: of two that renew at once, one fails and looks again.
    let next = if good {
        // The same leaf and key: what others verify by, and what leads there, comes and goes without a new one.
        let mut next = live;
        let data = next.data.get_or_insert_default();
        data.insert("tls.crt".to_owned(), bytes(&rechained.unwrap_or(chain)));
        data.insert("ca.crt".to_owned(), bytes(&authority.bundle));
        next
    } else {
        fill(live, wanted, authority, now)?
    };
    Ok(api
        .replace(
            &wanted.name,
            &PostParams { field_manager: Some(apply::MANAGER.to_owned()), ..PostParams::default() },
            &next,
        )
        .await?)
}

fn fill(mut secret: Secret, wanted: &Wanted, authority: &Authority, now: Timestamp) -> Result<Secret, Error> {
    let (issued, KeyPem(key)) = authority.issue_with_key(&wanted.subject, now, rand::random())?;
    secret.metadata.name = Some(wanted.name.clone());
    secret.labels_mut().extend(wanted.labels.clone());
    secret.labels_mut().extend(own_labels());
    secret.annotations_mut().insert(SUBJECT.to_owned(), wanted.subject.fingerprint());
    if let Some(owner) = &wanted.owner {
        secret.metadata.owner_references = Some(vec![owner.clone()]);
    }
    secret.type_.get_or_insert_with(|| if wanted.tls_type { "kubernetes.io/tls" } else { "Opaque" }.to_owned());
    let data = secret.data.get_or_insert_default();
    for (key, value) in &wanted.first {
        data.entry(key.clone()).or_insert_with(|| bytes(value));
    }
    data.insert("tls.crt".to_owned(), bytes(&issued.chain));
    data.insert("tls.key".to_owned(), bytes(&key));
    data.insert("ca.crt".to_owned(), bytes(&authority.bundle));
    Ok(secret)
}

/// A Secret of ours with these data.
pub fn secret(name: &str, kind: &str, data: BTreeMap<String, ByteString>) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(own_labels().into()),
            ..ObjectMeta::default()
        },
        type_: Some(kind.to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

/// A text of a Secret.
pub fn text(secret: &Secret, key: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
}

/// Bytes for a Secret.
pub fn bytes(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}

pub(crate) fn own_labels() -> [(String, String); 2] {
    [("app.kubernetes.io/managed-by", apply::MANAGER), ("app.kubernetes.io/part-of", "liaison")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
}
