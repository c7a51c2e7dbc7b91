//! Secrets reach a partner in one bundle, encrypted to the recipients of its manifest: preshared keys, the enrolment token, and a
//! letter in both languages.
//!
//! A bundle is a tar archive in `age` (armoured), in a ConfigMap beside the connection, so that whoever onboards partners can
//! fetch it and nobody but the partner can read it. When the connection says by the bundle's digest that it was picked up, a Job of
//! sync notes that in the ledger; then the bundle goes, and the token with it. What was handed over is not handed over again.

pub mod contents;

use contents::{Content, Item, items, keystore, letter, manifest, pack, seal, wg_quick};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{ConfigMap, Secret},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, Resource, ResourceExt,
    api::ObjectMeta,
    runtime::events::{Event, EventType},
};
use liaison_crds::{
    PICKED_UP_ANNOTATION, PartnerConnection,
    partner_connection::{Connection, EnrolmentToken, SecretBundle},
};
use sha2::{Digest, Sha256};

use super::{
    Error,
    apply::{RETRY_SECONDS, Visit, failed_at},
    custody,
    dereference::pods_of,
    enrolment,
    status::{self, JobState, Outcome},
    validate::Checked,
    workloads::{self, Task},
};
use crate::{apply, install, preshared};

/// Key of the bundle in its ConfigMap.
pub const FILE: &str = "bundle.age";
/// Says of a ConfigMap what was put in, and for whom.
const FOR: &str = "federation.csc-scc.gc.ca/bundle";

/// What a bundle is for: its recipients and what is in it.
fn mark(recipients: &[String], contents: &[String]) -> String {
    hex::encode(Sha256::digest(format!("{}\n\n{}", recipients.join("\n"), contents.join("\n"))))
}

/// Whether the bundle has arrived: the connection says so, or its token was used, which nobody has who did not open it.
fn picked_up(
    state: &SecretBundle,
    bundle: &str,
    connection: &PartnerConnection,
    token: Option<&EnrolmentToken>,
) -> bool {
    let said = connection.annotations().get(PICKED_UP_ANNOTATION).is_some_and(|said| said == bundle);
    let used = token.filter(|token| token.used_by.is_some()).is_some_and(|token| {
        let item = Item::Token { digest: token.token_digest.clone(), not_after: token.not_after.0 };
        state.contents.contains(&item.name())
    });
    said || used
}

impl Visit<'_> {
    /// Makes the bundle, if there is something to hand over; takes it away when it was picked up or is no longer wanted.
    pub(super) async fn bundle(
        &self,
        connection: &PartnerConnection,
        checked: &Checked,
        outcome: &Outcome,
    ) -> Result<Option<SecretBundle>, Error> {
        let before = connection.status.as_ref().and_then(|status| status.bundle.clone());
        if checked.recipients.is_empty() && before.is_none() {
            return Ok(None);
        }
        let mut state = before.unwrap_or_default();
        if let Some(bundle) = &state.sha256
            && picked_up(&state, bundle, connection, outcome.enrolment.as_ref())
        {
            if !self.ledgered(bundle, &state.contents).await? {
                return Ok(Some(state));
            }
            apply::ensure_gone(&self.partners::<ConfigMap>(), &self.names.bundle, false).await?;
            state = self.handed_over(state).await?;
        }
        let all = items(outcome, self.now);
        state.handed_over.retain(|name| all.iter().any(|item| item.name() == *name));
        let mut wanted: Vec<Item> = all.into_iter().filter(|item| !state.handed_over.contains(&item.name())).collect();
        // Private halves that are no more have been handed over, whatever status has forgotten.
        for pair in outcome.custody.iter().map(|pair| (pair.number, format!("keys-{}", pair.number))) {
            let asked = wanted.iter().any(|item| item.name() == pair.1);
            if asked && custody::pair(self.ctx, self.names, pair.0).await?.is_none() {
                wanted.retain(|item| item.name() != pair.1);
                state.handed_over.push(pair.1);
            }
        }
        // A manifest that is not accepted makes no new bundle; one that waits stays.
        if !checked.accepted() && !checked.revoked {
            return Ok((state != SecretBundle::default()).then_some(state));
        }
        let made = match &outcome.connection {
            Some(place) if !checked.revoked && !checked.recipients.is_empty() => {
                self.sealed(connection, checked, place, &wanted, &state).await?
            }
            _ => None,
        };
        let Some((sealed, contents)) = made else {
            if state.sha256.is_some() {
                apply::ensure_gone(&self.partners::<ConfigMap>(), &self.names.bundle, false).await?;
            }
            let left = SecretBundle { handed_over: state.handed_over, ..SecretBundle::default() };
            return Ok((left != SecretBundle::default()).then_some(left));
        };
        let sha256 = hex::encode(Sha256::digest(&sealed));
        if state.sha256.as_ref() != Some(&sha256) {
            state.made = Some(Time(self.now));
            state.sha256 = Some(sha256);
            self.announce(connection, &contents).await;
        }
        state.contents = contents;
        Ok(Some(state))
    }

    /// The bundle and the names of what is in it: as it is, as long as nothing new is wanted; else a new one. None if there is
    /// nothing to put in.
    async fn sealed(
        &self,
        connection: &PartnerConnection,
        checked: &Checked,
        place: &Connection,
        wanted: &[Item],
        state: &SecretBundle,
    ) -> Result<Option<(String, Vec<String>)>, Error> {
        let bundles: Api<ConfigMap> = self.partners();
        let name = &self.names.bundle;
        let names: Vec<String> = wanted.iter().map(Item::name).collect();
        let text = |live: &ConfigMap, contents: &[String]| {
            let mine = live.annotations().get(FOR) == Some(&mark(&checked.recipients, contents));
            live.data.as_ref().and_then(|data| data.get(FILE)).filter(|_| mine).cloned()
        };
        let live = bundles.get_opt(name).await?;
        if let Some(live) = &live {
            // What has been used, or has ended, does not change the bundle that it was in.
            let waiting = state.sha256.is_some() && names.iter().all(|name| state.contents.contains(name));
            for contents in [Some(&names), Some(&state.contents).filter(|_| waiting)].into_iter().flatten() {
                if let Some(sealed) = text(live, contents).filter(|_| !contents.is_empty()) {
                    return Ok(Some((sealed, contents.clone())));
                }
            }
        }
        if names.is_empty() {
            return Ok(None);
        }
        if live.is_some() {
            apply::ensure_gone(&bundles, name, false).await?;
        }
        let partner = &self.names.partner;
        let mut files = vec![("letter.txt".to_owned(), letter(partner, place, wanted).into())];
        for item in wanted {
            files.extend(self.files(item, place).await?);
        }
        if wanted.iter().any(|item| matches!(item, Item::Keys { .. })) {
            files.push(("ca.pem".to_owned(), place.ca_bundle.clone().into()));
        }
        let signer = self.ctx.signers().borrow().clone();
        files.extend(manifest(partner, &files, &signer, self.now)?);
        let sealed = seal(&checked.recipients, &pack(&files, self.now)?)?;
        let object = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(self.names.labels("bundle")),
                annotations: Some([(FOR.to_owned(), mark(&checked.recipients, &names))].into()),
                owner_references: connection.owner_ref(&()).map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            data: Some([(FILE.to_owned(), sealed)].into()),
            immutable: Some(true),
            ..ConfigMap::default()
        };
        let (live, _) = apply::create_once(&bundles, &object).await?;
        let broken = || install::Error::Broken { name: name.clone(), key: FILE };
        let sealed = text(&live, &names).ok_or_else(broken)?;
        Ok(Some((sealed, names)))
    }

    async fn files(&self, item: &Item, place: &Connection) -> Result<Vec<(String, Content)>, Error> {
        let Item::Keys { pair, chain, entry } = item else { return Ok(vec![(item.file(), self.secret(item).await?)]) };
        let number = pair.number;
        let missing = || install::Error::Broken { name: format!("keys-{}-{number}", self.names.partner), key: "keys" };
        let own = custody::pair(self.ctx, self.names, number).await?.ok_or_else(missing)?;
        let shared = match entry {
            Some(entry) => Some(preshared::read(self.ctx, entry).await?.ok_or_else(missing)?),
            None => None,
        };
        let password = hex::encode(rand::random::<[u8; 16]>());
        let keystore = keystore(&place.server_name, &own.certificate, chain, &password)?;
        Ok(vec![
            (item.file(), wg_quick(&own.wire_guard, shared.as_deref(), place)),
            (format!("tls-{number}.key"), own.certificate.into()),
            (format!("chain-{number}.pem"), chain.clone().into()),
            (format!("client-{number}.p12"), keystore),
            (format!("client-{number}.password"), format!("{password}\n").into()),
        ])
    }

    async fn secret(&self, item: &Item) -> Result<Content, Error> {
        let missing = |name: &str, key: &'static str| install::Error::Broken { name: name.to_owned(), key };
        let text = match item {
            Item::Keys { .. } => String::new(),
            Item::Preshared { entry, .. } => preshared::read(self.ctx, entry)
                .await?
                .map(|key| format!("{key}\n"))
                .ok_or_else(|| missing("gateway-psk", "preshared key"))?,
            Item::Token { .. } => {
                let name = &self.names.enrolment_secret;
                let secret = self.system::<Secret>().get_opt(name).await?;
                let token = secret.and_then(|secret| install::text(&secret, enrolment::KEY));
                let token = token.ok_or_else(|| missing(name, enrolment::KEY))?;
                format!("user = \"{}:{token}\"\n", self.names.partner)
            }
        };
        Ok(text.into())
    }

    /// Whether the ledger has it that this bundle was picked up. Starts the Job that says so.
    async fn ledgered(&self, bundle: &str, contents: &[String]) -> Result<bool, Error> {
        let settings = &self.ctx.settings;
        let name = format!("handover-{}-{}", self.names.partner, bundle.get(..8).unwrap_or(bundle));
        let jobs: Api<Job> = self.system();
        let Some(job) = jobs.get_opt(&name).await? else {
            let task = Task::Handover { name, bundle: bundle.to_owned(), contents: contents.to_vec() };
            let job = workloads::job(&task, self.names, settings, &settings.default_store)?;
            apply::create_once(&jobs, &job).await?;
            return Ok(false);
        };
        let pods = pods_of(self.ctx, &name).await?;
        Ok(match status::job_state(&job, &pods, "noting the hand-over") {
            JobState::Done(_) => true,
            JobState::Running(_) => false,
            JobState::Failed(_) => {
                if self.now.as_second() >= failed_at(&job).map_or(0, Timestamp::as_second) + RETRY_SECONDS {
                    apply::ensure_gone(&jobs, &name, false).await?;
                }
                false
            }
        })
    }

    /// What was picked up goes: the token's only copy is the partner's now.
    async fn handed_over(&self, state: SecretBundle) -> Result<SecretBundle, Error> {
        if state.contents.iter().any(|name| name.starts_with("token-")) {
            apply::ensure_gone(&self.system::<Secret>(), &self.names.enrolment_secret, false).await?;
        }
        for number in state.contents.iter().filter_map(|name| name.strip_prefix("keys-")?.parse().ok()) {
            custody::forget(self.ctx, self.names, number).await?;
        }
        let mut handed_over = state.handed_over;
        handed_over.extend(state.contents);
        Ok(SecretBundle { handed_over, ..SecretBundle::default() })
    }

    async fn announce(&self, connection: &PartnerConnection, contents: &[String]) {
        let note = format!(
            "ConfigMap {} has what was made for the partner ({}): send it, and when it has arrived annotate the connection with \
             {PICKED_UP_ANNOTATION} and its SHA-256",
            self.names.bundle,
            contents.join(", ")
        );
        let event = Event {
            type_: EventType::Normal,
            reason: "BundleWaits".to_owned(),
            note: Some(note),
            action: "HandOver".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.ctx.recorder.publish(&event, &connection.object_ref(&())).await {
            tracing::debug!(%error, "event not published");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partner_connection::fixtures::{connection, now};

    fn token(used: bool) -> EnrolmentToken {
        EnrolmentToken {
            token_number: 1,
            token_digest: "d".repeat(64),
            issued: Time(now()),
            not_after: Time(now()),
            used_by: used.then(|| "key".to_owned()),
        }
    }

    #[test]
    fn it_counts_as_picked_up_when_that_is_said_of_this_bundle_or_its_token_was_used() {
        let mut connection = connection("vancouver-police");
        let state = SecretBundle {
            sha256: Some("ab".into()),
            contents: vec![format!("token-{}", "d".repeat(16))],
            ..SecretBundle::default()
        };
        let picked =
            |connection: &PartnerConnection, token: &EnrolmentToken| picked_up(&state, "ab", connection, Some(token));
        assert!(!picked(&connection, &token(false)) && picked(&connection, &token(true)));
        connection.annotations_mut().insert(PICKED_UP_ANNOTATION.into(), "cd".into());
        assert!(!picked(&connection, &token(false)), "another bundle");
        connection.annotations_mut().insert(PICKED_UP_ANNOTATION.into(), "ab".into());
        assert!(picked(&connection, &token(false)));
    }
}
