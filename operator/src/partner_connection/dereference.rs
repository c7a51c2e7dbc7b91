//! What a reconcile looks at besides the connection itself. Reads only, from the API server and not from a cache: a decision
//! on stale state would issue a certificate twice.

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::{Job, JobStatus},
    certificates::v1::CertificateSigningRequest,
    coordination::v1::Lease,
    core::v1::{Pod, Secret},
};
use kube::{Api, api::ListParams};
use liaison_crds::{
    PARTNER_LABEL, PartnerConnection, SharingAgreement,
    enrolment::{NAMESPACE_LABEL, SIGNER, token_lease},
};

use super::{names::Names, status::is_new};
use crate::{claims, context::Context, slots};

/// Everything around a connection.
#[derive(Debug, Default)]
pub struct World {
    /// The agreement that the connection names.
    pub agreement: Option<SharingAgreement>,
    /// The partner's claims.
    pub leases: Vec<Lease>,
    /// Where its store is.
    pub store_secret: Option<Secret>,
    /// The verifier for the seed Job.
    pub seed_secret: Option<Secret>,
    /// The seed Job.
    pub seed_job: Option<Job>,
    /// Its pods.
    pub seed_pods: Vec<Pod>,
    /// The read service.
    pub deployment: Option<Deployment>,
    /// What the gateway has asked for on the partner's behalf.
    pub requests: Vec<CertificateSigningRequest>,
}

/// Reads it all.
pub async fn dereference(ctx: &Context, connection: &PartnerConnection, names: &Names) -> Result<World, kube::Error> {
    let system = &ctx.settings.system_namespace;
    let partners = &ctx.settings.partners_namespace;
    let agreements: Api<SharingAgreement> = Api::namespaced(ctx.client.clone(), partners);
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), system);
    let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), system);
    let deployments: Api<Deployment> = Api::namespaced(ctx.client.clone(), partners);
    let store = ctx.settings.store_secret_of(&super::validate::store_of(connection, &ctx.settings.default_store));
    // Before a first visit has ended they are made without a look; who finds them there takes them as they are. Nor does one that is
    // to serve start its InfoPol yet; one that is not to serve stops what there may be.
    let new = is_new(connection);
    let serving = connection.spec.suspend != Some(true) && connection.spec.revocation.is_none();
    let seed_secret = async { if new { Ok(None) } else { secrets.get_opt(&names.seed_secret).await } };
    let seed_job = async { if new { Ok(None) } else { jobs.get_opt(&names.seed_job).await } };
    let deployment = async { if new && serving { Ok(None) } else { deployments.get_opt(&names.infopol).await } };
    let (agreement, leases, store_secret, seed_secret, seed_job, deployment, requests) = tokio::try_join!(
        agreements.get_opt(&connection.spec.agreement_ref.name),
        ctx.claims.of(&names.partner, stated(ctx, connection)),
        secrets.get_opt(&store),
        seed_secret,
        seed_job,
        deployment,
        requests_of(ctx, connection, &names.partner),
    )?;
    // A Job of which its controller has not spoken yet has none.
    let seed_pods = match seed_job.as_ref().and_then(|job| job.status.as_ref()) {
        Some(status) if *status != JobStatus::default() => pods_of(ctx, &names.seed_job).await?,
        _ => Vec::new(),
    };
    Ok(World { agreement, leases, store_secret, seed_secret, seed_job, seed_pods, deployment, requests })
}

/// Names of the claims that the connection's status gives away: a watch may be late, and what was granted is always looked at.
fn stated(ctx: &Context, connection: &PartnerConnection) -> Vec<String> {
    let Some(status) = &connection.status else { return Vec::new() };
    let slot = status.connection.iter().filter_map(|held| ctx.pools.slot_of(&held.partner_addresses.ipv4));
    let keys = status.wire_guard_keys_seen.iter().filter_map(|key| STANDARD.decode(&key.public_key).ok());
    let certificates = status.certificates.iter().map(|held| claims::request_lease(&held.public_key_sha256));
    let token = status.enrolment.iter().map(|token| token_lease(&token.token_digest));
    let keys = keys.map(|key| claims::wire_guard_lease(&key));
    slot.map(slots::lease_name).chain(keys).chain(certificates).chain(token).collect()
}

/// The requests of a partner that may enrol.
async fn requests_of(
    ctx: &Context,
    connection: &PartnerConnection,
    partner: &str,
) -> Result<Vec<CertificateSigningRequest>, kube::Error> {
    if connection.spec.credentials.certificate.enrolment.is_none() {
        return Ok(Vec::new());
    }
    let requests: Api<CertificateSigningRequest> = Api::all(ctx.client.clone());
    let which = ListParams::default()
        .labels(&format!("{PARTNER_LABEL}={partner},{NAMESPACE_LABEL}={}", ctx.settings.partners_namespace))
        .fields(&format!("spec.signerName={SIGNER}"));
    Ok(requests.list(&which).await?.items)
}

/// The pods of a Job.
pub async fn pods_of(ctx: &Context, job: &str) -> Result<Vec<Pod>, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &ctx.settings.system_namespace);
    let list = pods.list(&ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"))).await?;
    Ok(list.items)
}
