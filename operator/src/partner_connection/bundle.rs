//! Secrets reach a partner in one bundle, encrypted to the recipients of its manifest: preshared keys, the enrolment token, and a
//! letter in both languages.
//!
//! A bundle is a tar archive in `age` (armoured), in a ConfigMap beside the connection, so that whoever onboards partners can
//! fetch it and nobody but the partner can read it. When the connection says by the bundle's digest that it was picked up, a Job of
//! sync notes that in the ledger; then the bundle goes, and the token with it. What was handed over is not handed over again.

use std::io::Write as _;

use base64::{Engine, engine::general_purpose::STANDARD};
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
    partner_connection::{Connection, EnrolmentToken, SecretBundle, SeenKey},
    preshared_entry,
};
use sha2::{Digest, Sha256};

use super::{
    Error,
    apply::{RETRY_SECONDS, Visit, failed_at},
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

/// A secret that a partner is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The preshared key of a WireGuard key.
    Preshared {
        /// The WireGuard public key.
        public_key: String,
        /// Where the preshared key is.
        entry: String,
    },
    /// The enrolment token.
    Token {
        /// What status has of it.
        digest: String,
        /// Until when it can be used.
        not_after: Timestamp,
    },
}

impl Item {
    /// The name in status and in the ledger; tells nothing of the secret.
    pub fn name(&self) -> String {
        match self {
            Self::Preshared { entry, .. } => format!("psk-{entry}"),
            Self::Token { digest, .. } => format!("token-{}", digest.get(..16).unwrap_or(digest)),
        }
    }

    /// The file in the bundle.
    fn file(&self) -> String {
        match self {
            Self::Preshared { entry, .. } => format!("psk-{}", entry.get(..8).unwrap_or(entry)),
            Self::Token { .. } => "token".to_owned(),
        }
    }
}

/// What a partner is to have, by what is granted: every preshared key, and the token while it is of use.
pub fn items(keys: &[SeenKey], token: Option<&EnrolmentToken>, now: Timestamp) -> Vec<Item> {
    let shared = keys.iter().filter(|key| key.preshared).filter_map(|key| {
        let entry = preshared_entry(&STANDARD.decode(&key.public_key).ok()?);
        Some(Item::Preshared { public_key: key.public_key.clone(), entry })
    });
    let token = token.filter(|token| token.used_by.is_none() && token.not_after.0 > now);
    let token = token.map(|token| Item::Token { digest: token.token_digest.clone(), not_after: token.not_after.0 });
    shared.chain(token).collect()
}

/// A secret on its way into a bundle; cannot be logged.
pub struct Content(pub String);

/// Reads a recipient; the error says what must hold.
pub fn recipient(text: &str) -> Result<age::x25519::Recipient, String> {
    text.parse().map_err(|_| "must be a public key of age, as `age-keygen` prints it ('age1...')".to_owned())
}

/// The letter that lies in the bundle.
pub fn letter(partner: &str, connection: &Connection, items: &[Item]) -> String {
    let (mut en, mut fr) = (String::new(), String::new());
    for item in items {
        let file = item.file();
        let (english, french) = match item {
            Item::Preshared { public_key, .. } => (
                format!(
                    "the preshared key of your WireGuard key {public_key}.\n    Put it into the tunnel's configuration as PresharedKey, under [Peer]."
                ),
                format!(
                    "la clé prépartagée de votre clé WireGuard {public_key}.\n    Mettez-la dans la configuration du tunnel comme PresharedKey, sous [Peer]."
                ),
            ),
            Item::Token { not_after, .. } => (
                format!(
                    "your enrolment token: a configuration file of curl (partner kit, section 9).\n    It brings one key a certificate, inside your tunnel, until {not_after}."
                ),
                format!(
                    "votre jeton d'inscription : un fichier de configuration de curl (trousse, section 9).\n    Il apporte un certificat à une seule clé, dans votre tunnel, jusqu'au {not_after}."
                ),
            ),
        };
        en.extend(["  ", &file, "\n    ", &english, "\n"]);
        fr.extend(["  ", &file, "\n    ", &french, "\n"]);
    }
    let (name, gateway) = (&connection.server_name, &connection.gateway_addresses.ipv4);
    format!(
        "Secrets for {partner}\n\n\
         CSC has made these for you. Nobody else can read them: the bundle was encrypted to your own key.\n\n{en}\n\
         Keep them where only root can read, and tell your contact at CSC that you have them, with the SHA-256 of the bundle\n\
         (sha256sum bundle.age). CSC then removes its copy of the bundle; what is lost afterwards is made anew, not again.\n\
         Your server name is {name}; the gateway's address for you is {gateway}.\n\n\
         --------\n\n\
         Secrets pour {partner}\n\n\
         Le SCC les a créés pour vous. Personne d'autre ne peut les lire : l'envoi a été chiffré pour votre propre clé.\n\n{fr}\n\
         Gardez-les là où seul root peut lire, et dites à votre interlocuteur au SCC que vous les avez, avec le SHA-256 de l'envoi\n\
         (sha256sum bundle.age). Le SCC supprime alors sa copie; ce qui se perd ensuite est refait, et non redonné.\n\
         Votre nom de serveur est {name}; l'adresse de la passerelle pour vous est {gateway}.\n"
    )
}

/// The files as a tar archive, readable by their owner only.
pub fn pack(files: &[(String, Content)], now: Timestamp) -> Result<Vec<u8>, std::io::Error> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, Content(text)) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now.as_second()).unwrap_or_default());
        archive.append_data(&mut header, name, text.as_bytes())?;
    }
    archive.into_inner()
}

/// Encrypts to every recipient, in armour. age takes its randomness itself.
pub fn seal(recipients: &[String], bytes: &[u8]) -> Result<String, std::io::Error> {
    let recipients: Result<Vec<_>, _> = recipients.iter().map(|text| recipient(text)).collect();
    let recipients = recipients.map_err(std::io::Error::other)?;
    let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(recipients).map_err(std::io::Error::other)?;
    let mut sealed = Vec::new();
    let armour = age::armor::ArmoredWriter::wrap_output(&mut sealed, age::armor::Format::AsciiArmor)?;
    let mut writer = encryptor.wrap_output(armour)?;
    writer.write_all(bytes)?;
    writer.finish()?.finish()?;
    String::from_utf8(sealed).map_err(std::io::Error::other)
}

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
        let all = items(&outcome.keys, outcome.enrolment.as_ref(), self.now);
        state.handed_over.retain(|name| all.iter().any(|item| item.name() == *name));
        let wanted: Vec<Item> = all.into_iter().filter(|item| !state.handed_over.contains(&item.name())).collect();
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
        let mut files = vec![("letter.txt".to_owned(), Content(letter(partner, place, wanted)))];
        for item in wanted {
            files.push((item.file(), self.secret(item).await?));
        }
        let archive = pack(&files, self.now).map_err(Error::Bundle)?;
        let sealed = seal(&checked.recipients, &archive).map_err(Error::Bundle)?;
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

    async fn secret(&self, item: &Item) -> Result<Content, Error> {
        let missing = |name: &str, key: &'static str| install::Error::Broken { name: name.to_owned(), key };
        let text = match item {
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
        Ok(Content(text))
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
#[path = "bundle_tests.rs"]
mod tests;
