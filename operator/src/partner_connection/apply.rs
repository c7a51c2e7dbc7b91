//! The effects of a visit, in the order in which one relies on the other: claims, grants in status, Secrets, the seed Job,
//! the read service, and at the end the claims that are no longer needed.
//!
//! Each step looks first and does nothing where all is as it should be; killed after any of them, the next visit goes on.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        batch::v1::Job,
        core::v1::{Secret, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, Resource, ResourceExt, api::Patch};
use liaison_crds::{
    PartnerConnection, acceptance::Refusal, conditions::REPLICA_READY, enrolment, gateway,
    partner_connection::IssuedCertificate, revocation::Floor,
};
use liaison_records::names::PartnerName;
use serde_json::json;

use super::{
    Error,
    dereference::World,
    issuer::Elsewhere,
    names::Names,
    overlap::Overlap,
    plan::{self, Source},
    status::{self, JobState, Outcome, State},
    validate::Checked,
    verification,
    workloads::{self, Infopol, Store, Task},
};
use crate::{
    apply,
    ca::Subject,
    claims::{self, Claim, Memories, Memory},
    context::Context,
    install::{self, Wanted},
    pool::{self, Place},
    preshared, scram, shards, slots,
};

/// What the seed Job does.
const FILLING: &str = "filling the replica";
const WAITING_FOR_REPLICA: &str = "the partner's InfoPol starts when its replica has been filled";
/// First visits a second. A replica that was left is begun when there are none left; or so many seconds later as they may take, should
/// one of them never end.
const FIRST_VISITS: usize = 32;
/// A Job that gave up is started again after this many seconds.
pub const RETRY_SECONDS: i64 = 10;

/// One visit's effects.
pub struct Visit<'a> {
    /// What all reconciles share.
    pub ctx: &'a Context,
    /// Names.
    pub names: &'a Names,
    /// The visit's time.
    pub now: Timestamp,
}

impl Visit<'_> {
    /// Does everything, short of the last status write.
    pub async fn run(
        &self,
        connection: PartnerConnection,
        mut world: World,
        mut checked: Checked,
    ) -> Result<(PartnerConnection, Outcome), Error> {
        let ctx = self.ctx;
        checked.refusal = checked.refusal.or_else(|| ctx.settings.gateways.refuses(&connection));
        let floor = Floor::of(&connection);
        let new = status::is_new(&connection);
        let held = connection.status.as_ref().map(|status| status.certificates.as_slice()).unwrap_or_default();
        self.remember_revoked(&mut world, held, checked.revoked, floor).await?;
        // A key that comes while everything is revoked is looked at when that ends, so that it can be a new one then.
        if checked.accepted() && !checked.revoked {
            checked.refusal = self.claim_keys(&mut world, &checked, floor).await?;
        }
        let place = if checked.accepted() || checked.provisioned {
            pool::place(ctx, &world.leases, &connection, checked.accepted(), self.now).await?
        } else {
            Place::default()
        };
        let slot = place.slot;
        let before = connection.status.clone();
        let elsewhere = self.elsewhere(&connection, &checked).await?;
        let memories = claims::memories(&world.leases);
        let mut outcome = self.grants(&checked, before.as_ref(), (&memories, floor), place, elsewhere.as_ref())?;
        outcome.enrolment = if outcome.connection.is_some() {
            self.token(&checked, before.as_ref().and_then(|status| status.enrolment.as_ref()), floor).await?
        } else {
            None
        };
        let decided = self.enrol(&mut world, &checked, &mut outcome).await?;
        for key in &checked.keys {
            if outcome.keys.iter().any(|granted| granted.preshared && granted.public_key == key.text) {
                preshared::ensure(ctx, &key.lease, rand::random()).await?;
            }
        }
        outcome.replica = replica_so_far(&world, &checked, &outcome, before.as_ref());
        // What is granted is written before anything reads it; what is taken away, before anything else.
        let api: Api<PartnerConnection> = Api::namespaced(ctx.client.clone(), &ctx.settings.partners_namespace);
        // Of two that issue on one request, one writes; the other looks again, and finds the certificate.
        let issued = decided.iter().any(|(_, _, now)| *now);
        let granted = status::write_grants(&api, &connection, &outcome, self.now, issued).await?;
        let connection = ctx.wrote(&connection, granted);
        self.answer(&connection, &decided).await?;
        outcome.bundle = Box::pin(self.bundle(&connection, &checked, &outcome)).await?;

        let served = self.deployment_of(&world, &checked).await?;
        let why = match (&checked.refusal, checked.suspended, checked.revoked) {
            (_, _, true) => ("Revoked", "revoked in the manifest: nothing is served".to_owned()),
            (_, true, _) => ("Suspended", "suspended in the manifest: nothing is served".to_owned()),
            (Some(refusal), ..) => (refusal.reason(), refusal.to_string()),
            _ => ("Closed", "nothing is served".to_owned()),
        };
        outcome.closed = (checked.suspended || checked.revoked).then_some(why.0);
        if !(checked.serving() && outcome.connection.is_some()) {
            outcome.access = status::access_state(served.as_ref(), 0, why.0, &why.1);
            // Closed on purpose is as asked; closed for any other reason is not.
            outcome.access.holds &= outcome.closed.is_some();
            self.release_unused(&world, &checked, &outcome, slot).await?;
            return Ok((connection, outcome));
        }

        // A replica takes its time anyway: who waits for credentials comes first, when there are many.
        let others = if new { ctx.newcomers().saturating_sub(1) } else { 0 };
        if others > 0 {
            ctx.leave(&self.names.partner);
            outcome.later = Some(1 + others / FIRST_VISITS);
            return Ok((connection, outcome));
        }
        outcome.replica = self.fill(&world, &checked, &connection, outcome.replica).await?;
        let ready = outcome.replica.holds;
        if ready {
            outcome.verified =
                Box::pin(verification::visit(ctx, self.names, &connection, &checked.store, self.now)).await?;
        }
        outcome.access = if ready || world.deployment.is_some() {
            let live = self.serve(&world, &connection, &checked).await?;
            world.deployment = live;
            status::access_state(world.deployment.as_ref(), i32::from(ctx.settings.infopol_replicas), why.0, &why.1)
        } else {
            State::no("WaitingForReplica", WAITING_FOR_REPLICA)
        };
        self.release_unused(&world, &checked, &outcome, slot).await?;
        Ok((connection, outcome))
    }

    /// Notes on the partner's claims which of its keys are revoked, whether the manifest still names them or not. Before
    /// anything else: killed afterwards, the next visit knows.
    async fn remember_revoked(
        &self,
        world: &mut World,
        certificates: &[IssuedCertificate],
        all: bool,
        floor: Floor,
    ) -> Result<(), Error> {
        for lease in world.leases.iter_mut().filter(|lease| claims::is_key(&lease.name_any())) {
            let memory = Memory::of(lease);
            if !memory.revoked && (all || floor.revokes(Some(memory.first_seen))) {
                preshared::forget(self.ctx, &lease.name_any()).await?;
                *lease = self.ctx.claims.revoke(lease, certificates, self.now).await?;
                tracing::info!(partner = self.names.partner, claim = lease.name_any(), "key revoked for good");
            }
        }
        Ok(())
    }

    async fn claim_keys(&self, world: &mut World, checked: &Checked, floor: Floor) -> Result<Option<Refusal>, Error> {
        let seen = floor.first_sight(self.now);
        for (lease, what) in checked.named() {
            if world.leases.iter().any(|held| held.name_any() == *lease) {
                continue;
            }
            match self.ctx.claims.claim(lease, &self.names.partner, seen).await? {
                Claim::Mine(lease) => world.leases.push(*lease),
                Claim::Of(holder) => return Ok(Some(Refusal::KeyInUse { what, holder })),
            }
        }
        Ok(None)
    }

    /// What is granted now. Pure but for the serials.
    fn grants(
        &self,
        checked: &Checked,
        before: Option<&liaison_crds::PartnerConnectionStatus>,
        (memories, floor): (&Memories, Floor),
        Place { slot, problem }: Place,
        elsewhere: Option<&Elsewhere>,
    ) -> Result<Outcome, Error> {
        let ctx = self.ctx;
        let partner = &self.names.partner;
        let authority = ctx.authority();
        let gateways = ctx.gateways();
        let held = before.filter(|status| status.connection.is_some()).map(|status| gateway::of(Some(status)));
        let shard = shards::choose(partner, checked.gateway.as_deref(), held, &gateways);
        let connection = slot
            .zip(shard)
            .map(|(slot, shard)| plan::connection(partner, slot, &ctx.pools, &ctx.settings, shard, &authority.bundle));
        let (mut keys, mut certificates) = if connection.is_some() {
            let subject = plan::subject(partner, &ctx.settings.domain);
            let source = elsewhere.map_or(Source::Own(&authority), |found| Source::Elsewhere(&found.certificates));
            let issued = plan::certificates(&subject, checked, before, memories, source, self.now, rand::random)?;
            (plan::keys(checked, before, memories), issued)
        } else {
            (Vec::new(), Vec::new())
        };
        // Of one whose claim somebody has deleted, status says how old it is.
        keys.retain(|key| !floor.revokes(Some(key.first_seen.0)));
        certificates.retain(|held| !floor.revokes(held.key_first_seen.as_ref().map(|seen| seen.0)));
        let overlap = Overlap::of(checked, before, memories, ctx.settings.key_overlap(), self.now);
        keys.retain(|key| overlap.over.iter().all(|over| over.text != key.public_key));
        let accepted = match &checked.refusal {
            Some(refusal) => State::no(refusal.reason(), refusal.to_string()),
            None => State::yes("Accepted", "the agreement covers what the manifest asks"),
        };
        let revoked = plan::revoked(checked, memories);
        let credentials = if checked.revoked {
            State::no("Revoked", "revoked in the manifest: no key and no certificate is accepted")
        } else if let Some(problem) = problem {
            State::no(problem.reason(), problem.to_string())
        } else if !revoked.is_empty() && (keys.is_empty() || certificates.is_empty()) {
            let named = revoked.join(" and ");
            State::no(
                "KeyRevoked",
                format!("{named} must be replaced by a new key: what was revoked is never accepted again"),
            )
        } else if certificates.is_empty() && !keys.is_empty() && checked.enrolment.is_some() {
            // It is the partner's turn, and whoever provisions need not wait for it.
            State::yes("AwaitingEnrolment", "the partner has no certificate yet, and may ask for one in its tunnel")
        } else if let Some(problem) =
            elsewhere.and_then(|found| found.problem.as_ref()).filter(|_| certificates.is_empty())
        {
            problem.clone()
        } else if keys.is_empty() || certificates.is_empty() {
            State::no("NotAccepted", "keys are claimed and certificates issued once the connection is accepted")
        } else {
            let mut message = format!("WireGuard keys: {}, certificates: {}", keys.len(), certificates.len());
            if !revoked.is_empty() {
                message = format!("{message}; revoked, and to be removed from the manifest: {}", revoked.join(", "));
            }
            if !overlap.over.is_empty() {
                let over = overlap.places().join(", ");
                message = format!(
                    "{message}; no longer accepted, since a newer one is in use, and to be removed from the manifest: {over}"
                );
            }
            if let Some(problem) = elsewhere.and_then(|found| found.problem.as_ref()) {
                message = format!("{message}; the next: {}", problem.message);
            }
            State::yes("Issued", message)
        };
        let granted = connection.is_some();
        Ok(Outcome {
            accepted,
            credentials,
            replica: State::no("Waiting", ""),
            access: State::no("WaitingForReplica", WAITING_FOR_REPLICA),
            closed: None,
            authorized_until: checked.authorized_until().filter(|_| granted),
            store_name: granted.then(|| checked.store.clone()),
            connection,
            keys,
            overlap_ends: overlap.ends,
            certificates,
            enrolment: None,
            custody: checked.custody.clone(),
            bundle: before.and_then(|status| status.bundle.clone()),
            verified: before.and_then(|status| status.replica.clone()),
            later: None,
        })
    }

    /// The Deployment as it is, stopped if it is not to serve. Stopping needs nothing but its name.
    async fn deployment_of(&self, world: &World, checked: &Checked) -> Result<Option<Deployment>, Error> {
        let Some(live) = &world.deployment else { return Ok(None) };
        let running = live.spec.as_ref().is_none_or(|spec| spec.replicas != Some(0));
        if checked.serving() || !running {
            return Ok(Some(live.clone()));
        }
        let api: Api<Deployment> = self.partners();
        let stop = json!({"spec": {"replicas": 0}});
        Ok(Some(api.patch(&self.names.infopol, &apply::merging(), &Patch::Merge(&stop)).await?))
    }

    /// The reader's Secret, its verifier, and the seed Job.
    async fn fill(
        &self,
        world: &World,
        checked: &Checked,
        connection: &PartnerConnection,
        before: State,
    ) -> Result<State, Error> {
        let settings = &self.ctx.settings;
        if world.store_secret.as_ref().and_then(store).is_none() {
            let name = settings.store_secret_of(&checked.store);
            return Ok(State::no(
                "StoreNotFound",
                format!(
                    "Secret '{name}' in namespace '{}' must say where replica store '{}' is: host, port, dbname and sync-password",
                    settings.system_namespace, checked.store
                ),
            ));
        }
        let reader = self.reader(connection, world.seed_secret.is_none()).await?;
        let secrets: Api<Secret> = self.system();
        if world.seed_secret.is_none() {
            let password = install::text(&reader, "password")
                .ok_or(install::Error::Broken { name: self.names.reader.clone(), key: "password" })?;
            let verifier = scram::verifier(&password, &rand::random());
            let mut secret = install::secret(
                &self.names.seed_secret,
                "Opaque",
                [("verifier".to_owned(), install::bytes(&verifier))].into(),
            );
            secret.labels_mut().extend(self.names.labels("sync"));
            apply::create_once(&secrets, &secret).await?;
        }
        let jobs: Api<Job> = self.system();
        let Some(job) = &world.seed_job else {
            let job = workloads::job(&Task::Seed, self.names, settings, &checked.store)?;
            if let (made, true) = apply::create_once(&jobs, &job).await? {
                self.ctx.written.note(&made);
            }
            return Ok(before);
        };
        Ok(match status::job_state(job, &world.seed_pods, FILLING) {
            JobState::Running(_) if before.holds => before,
            JobState::Done(state) => {
                // An upgrade: the seed of the new version brings schemas and functions up to date. The replica serves on.
                if workloads::image(job) != Some(settings.image_sync.as_str()) {
                    apply::ensure_gone(&jobs, &self.names.seed_job, false).await?;
                }
                state
            }
            JobState::Running(state) => state,
            JobState::Failed(state) => {
                if self.now.as_second() >= failed_at(job).map_or(0, Timestamp::as_second) + RETRY_SECONDS {
                    apply::ensure_gone(&jobs, &self.names.seed_job, false).await?;
                }
                state
            }
        })
    }

    /// The Secret of the reader's password and certificate. `new`: it is hardly there yet.
    async fn reader(&self, connection: &PartnerConnection, new: bool) -> Result<Secret, Error> {
        let role = self.role()?;
        let password = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let subject = Subject { common_name: role.clone(), client: true, ..Subject::default() };
        let wanted = Wanted {
            name: self.names.reader.clone(),
            labels: self.names.labels("infopol"),
            owner: owner(connection),
            first: [("username".to_owned(), role), ("password".to_owned(), password)].into(),
            subject,
            tls_type: false,
        };
        let (api, authority) = (self.partners(), self.ctx.authority());
        Ok(if new {
            install::make_tls(&api, &wanted, &authority, self.now).await?
        } else {
            install::ensure_tls(&api, &wanted, &authority, self.now).await?
        })
    }

    /// The read service.
    async fn serve(
        &self,
        world: &World,
        connection: &PartnerConnection,
        checked: &Checked,
    ) -> Result<Option<Deployment>, Error> {
        let (settings, names) = (&self.ctx.settings, self.names);
        let Some(store) = world.store_secret.as_ref().and_then(store) else { return Ok(world.deployment.clone()) };
        self.reader(connection, false).await?;
        let wanted = Wanted {
            name: names.infopol_tls.clone(),
            tls_type: true,
            labels: names.labels("infopol"),
            owner: owner(connection),
            first: BTreeMap::new(),
            subject: Subject {
                common_name: names.infopol.clone(),
                dns: vec![
                    format!("{}.{}.svc", names.infopol, settings.partners_namespace),
                    format!("{}.{}.svc.cluster.local", names.infopol, settings.partners_namespace),
                ],
                uris: vec![format!("spiffe://{}/infopol/{}", settings.domain, names.partner)],
                server: true,
                ..Subject::default()
            },
        };
        install::ensure_tls(&self.partners(), &wanted, &self.ctx.authority(), self.now).await?;
        let infopol = Infopol {
            names,
            settings,
            owner: owner(connection).unwrap_or_default(),
            store,
            reader: self.role()?,
            replicas: if checked.serving() { i32::from(settings.infopol_replicas) } else { 0 },
        };
        apply::ensure(&self.partners::<ServiceAccount>(), infopol.service_account()?).await?;
        apply::ensure(&self.partners::<NetworkPolicy>(), infopol.network_policy()?).await?;
        apply::ensure(&self.partners::<Service>(), infopol.service()?).await?;
        Ok(Some(apply::ensure(&self.partners::<Deployment>(), infopol.deployment()?).await?))
    }

    /// Frees the claims of keys that neither the manifest names nor a certificate is for, of tokens that are no more, and of
    /// slots that another has taken the place of.
    async fn release_unused(
        &self,
        world: &World,
        checked: &Checked,
        outcome: &Outcome,
        slot: Option<u32>,
    ) -> Result<(), Error> {
        let certified = |name: &String| {
            outcome.certificates.iter().any(|held| claims::request_lease(&held.public_key_sha256) == *name)
        };
        let token = outcome.enrolment.as_ref().map(|token| enrolment::token_lease(&token.token_digest));
        for lease in &world.leases {
            let name = lease.name_any();
            if slot.is_some() && slots::slot_of(&name).is_some_and(|held| Some(held) != slot) {
                pool::release(&self.ctx.claims, lease, self.ctx.settings.slot_quarantine(), self.now).await?;
            }
            let free = if claims::is_key(&name) {
                !Memory::of(lease).revoked && !certified(&name)
            } else {
                claims::is_token(&name) && token.as_ref() != Some(&name)
            };
            if free && !checked.named().any(|(named, _)| *named == name) {
                preshared::forget(self.ctx, &name).await?;
                self.ctx.claims.release(lease).await?;
            }
        }
        Ok(())
    }

    fn role(&self) -> Result<String, Error> {
        let name: PartnerName = self.names.partner.parse().map_err(|_| Error::Name(self.names.partner.clone()))?;
        Ok(name.reader_role())
    }

    pub(super) fn partners<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.ctx.client.clone(), &self.ctx.settings.partners_namespace)
    }

    pub(super) fn system<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.ctx.client.clone(), &self.ctx.settings.system_namespace)
    }
}

/// What is known of the replica before it is looked at.
fn replica_so_far(
    world: &World,
    checked: &Checked,
    outcome: &Outcome,
    before: Option<&liaison_crds::PartnerConnectionStatus>,
) -> State {
    let conditions = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
    match conditions.iter().find(|c| c.type_ == REPLICA_READY && c.status == "True") {
        Some(old) => State::yes(&old.reason, old.message.clone()),
        None if checked.serving() && outcome.connection.is_some() && world.seed_job.is_none() => {
            status::job_under_way(FILLING)
        }
        None => State::no("Waiting", "the replica is filled once the connection is accepted and open"),
    }
}

fn store(secret: &Secret) -> Option<Store> {
    Some(Store {
        host: install::text(secret, "host")?,
        port: install::text(secret, "port")?,
        dbname: install::text(secret, "dbname")?,
    })
}

pub(super) fn owner(connection: &PartnerConnection) -> Option<OwnerReference> {
    connection.owner_ref(&())
}

/// When a Job gave up.
pub fn failed_at(job: &Job) -> Option<Timestamp> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == "Failed")?.last_transition_time.as_ref().map(|at| at.0)
}
