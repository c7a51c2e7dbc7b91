//! The CAs' Secrets: `liaison-ca-root` and `liaison-ca-issuing`, then `liaison-ca-root-2` and so on.
//!
//! They are all the state that rotation has: a label says the tier, an annotation since when it signs. A CA is made by plain
//! create, made active by one replace with the resourceVersion, and removed by one delete; killed between any two, the next
//! visit goes on.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
};

use crate::{
    apply,
    ca::{self, Authority, CaPair, KeyPem},
    install::{self, Error, bytes, text},
    rotation::{self, Asked, Ca, State, Step, Tier},
};

/// The label of a CA's Secret; its value is the tier.
pub const TIER: &str = "federation.csc-scc.gc.ca/authority";
/// Since when it signs.
const ACTIVE: &str = "federation.csc-scc.gc.ca/active-since";
/// The last rotation that had been asked for when it was made.
const ASKED: &str = "federation.csc-scc.gc.ca/asked";
/// A root as its predecessor certifies it.
const CROSS: &str = "cross.crt";

/// All CAs with their keys.
#[derive(Debug, Default)]
pub struct Authorities {
    /// What rotation looks at.
    pub state: State,
    held: BTreeMap<(Tier, u32), Held>,
}

#[derive(Debug)]
struct Held {
    pair: CaPair,
    cross: Option<String>,
    secret: Kept,
}

/// The Secret as it was read; it holds a private key and is never shown.
struct Kept(Secret);

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// The name of a CA's Secret.
pub fn name(tier: Tier, number: u32) -> String {
    let stem = format!("liaison-ca-{}", tier.as_str());
    if number == 1 { stem } else { format!("{stem}-{number}") }
}

fn number(tier: Tier, secret: &str) -> Option<u32> {
    let rest = secret.strip_prefix(&name(tier, 1))?;
    if rest.is_empty() { Some(1) } else { rest.strip_prefix('-')?.parse().ok() }
}

/// Reads all CAs, and makes the first ones where there are none.
pub async fn ensure(api: &Api<Secret>, domain: &str, now: Timestamp) -> Result<Authorities, Error> {
    let mut all = load(api).await?;
    while all.state.active(Tier::Issuing).is_none() {
        let steps = rotation::next(&all.state, &Asked::default(), now);
        let Some(step) = steps.into_iter().find(|step| !rotation::waits(&all.state, *step, now)) else { break };
        all.take(api, step, &Asked::default(), domain, now).await?;
        all = load(api).await?;
    }
    Ok(all)
}

/// Reads all CAs.
pub async fn load(api: &Api<Secret>) -> Result<Authorities, Error> {
    let mut found = api.list(&ListParams::default().labels(TIER)).await?.items;
    for tier in Tier::ALL {
        // Of an installation of before there was more than one.
        let name = name(tier, 1);
        let known = found.iter().any(|secret| secret.labels().get(TIER).is_some_and(|label| label == tier.as_str()));
        if !known && let Some(old) = api.get_opt(&name).await? {
            found.push(adopt(api, old, tier).await?);
        }
    }
    let mut all = Authorities::default();
    for secret in found {
        let tier = Tier::ALL.into_iter().find(|tier| secret.labels().get(TIER).is_some_and(|l| l == tier.as_str()));
        let Some((tier, number)) = tier.and_then(|tier| Some((tier, number(tier, &secret.name_any())?))) else {
            continue;
        };
        let broken = |key| Error::Broken { name: secret.name_any(), key };
        let certificate = text(&secret, "tls.crt").ok_or_else(|| broken("tls.crt"))?;
        let key = KeyPem(text(&secret, "tls.key").ok_or_else(|| broken("tls.key"))?);
        let cross = text(&secret, CROSS);
        all.held.insert((tier, number), Held { pair: CaPair { certificate, key }, cross, secret: Kept(secret) });
    }
    all.describe()?;
    Ok(all)
}

async fn adopt(api: &Api<Secret>, mut secret: Secret, tier: Tier) -> Result<Secret, Error> {
    let since = text(&secret, "tls.crt").and_then(|pem| ca::read(&pem).ok()).map(|validity| validity.not_before);
    secret.labels_mut().insert(TIER.to_owned(), tier.as_str().to_owned());
    secret.annotations_mut().insert(ACTIVE.to_owned(), since.unwrap_or(Timestamp::UNIX_EPOCH).to_string());
    replace(api, secret).await
}

async fn replace(api: &Api<Secret>, secret: Secret) -> Result<Secret, Error> {
    let params = PostParams { field_manager: Some(apply::MANAGER.to_owned()), ..PostParams::default() };
    Ok(api.replace(&secret.name_any(), &params, &secret).await?)
}

impl Authorities {
    fn describe(&mut self) -> Result<(), Error> {
        let roots: Vec<(u32, &str)> =
            self.roots().map(|(number, held)| (number, held.pair.certificate.as_str())).collect();
        let mut state = State::default();
        for ((tier, number), held) in &self.held {
            let certificate = held.pair.certificate.as_str();
            let unreadable = |_| Error::Broken { name: held.secret.0.name_any(), key: "tls.crt" };
            let annotations = held.secret.0.annotations();
            let parent = roots.iter().rev().find(|(_, root)| ca::is_signed_by(certificate, root)).map(|(n, _)| *n);
            let ca = Ca {
                number: *number,
                certificate: ca::digests(certificate).into_iter().next().unwrap_or_default(),
                name: ca::subject_digest(certificate).map_err(unreadable)?,
                parent: parent.filter(|_| *tier == Tier::Issuing),
                validity: ca::read(certificate).map_err(unreadable)?,
                active_since: annotations.get(ACTIVE).and_then(|at| at.parse().ok()),
                asked: annotations.get(ASKED).cloned(),
            };
            match tier {
                Tier::Root => state.roots.push(ca),
                Tier::Issuing => state.issuing.push(ca),
            }
        }
        self.state = state;
        Ok(())
    }

    fn roots(&self) -> impl DoubleEndedIterator<Item = (u32, &Held)> {
        self.held.iter().filter(|((tier, _), _)| *tier == Tier::Root).map(|((_, number), held)| (*number, held))
    }

    fn active(&self, tier: Tier) -> Option<&Held> {
        self.held.get(&(tier, self.state.active(tier)?.number))
    }

    /// All roots in PEM, the active one first.
    pub fn bundle(&self) -> String {
        let active = self.state.active(Tier::Root).map(|root| root.number);
        let others = self.roots().filter(|(number, _)| Some(*number) != active).map(|(_, held)| held);
        self.active(Tier::Root).into_iter().chain(others).map(|held| held.pair.certificate.as_str()).collect()
    }

    /// A CA's certificate in PEM.
    pub fn certificate(&self, tier: Tier, number: u32) -> Option<&str> {
        Some(self.held.get(&(tier, number))?.pair.certificate.as_str())
    }

    /// The issuing CAs, with the names of their Secrets.
    pub fn issuing(&self) -> impl Iterator<Item = (String, &CaPair)> {
        let issuing = self.held.iter().filter(|((tier, _), _)| *tier == Tier::Issuing);
        issuing.map(|((tier, number), held)| (name(*tier, *number), &held.pair))
    }

    /// From the root that an issuing CA is under, back to the oldest that is there: each as its predecessor certifies it.
    fn crosses(&self, mut from: u32) -> String {
        let mut all = String::new();
        while let Some(cross) = self.held.get(&(Tier::Root, from)).and_then(|root| root.cross.as_deref()) {
            let by = self.roots().rev().find(|(n, root)| *n < from && ca::is_signed_by(cross, &root.pair.certificate));
            let Some((by, _)) = by else { break };
            all.push_str(cross);
            from = by;
        }
        all
    }

    /// What signs now.
    pub fn authority(&self) -> Result<Authority, Error> {
        let broken = || Error::Broken { name: name(Tier::Issuing, 1), key: "tls.crt" };
        let issuing = self.active(Tier::Issuing).ok_or_else(broken)?;
        let parent = self.state.active(Tier::Issuing).and_then(|ca| ca.parent).ok_or_else(broken)?;
        Ok(Authority::load(&issuing.pair, &self.crosses(parent), &self.bundle())?)
    }

    /// Takes one step; what is held here is as before, and to be loaded again.
    pub async fn take(
        &self,
        api: &Api<Secret>,
        step: Step,
        asked: &Asked,
        domain: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        match step {
            Step::Make(tier) => {
                let (number, root) = (self.state.next_number(tier), self.active(Tier::Root));
                let mut made = Vec::new();
                let pair = match (tier, root) {
                    (Tier::Root, old) => {
                        let pair = ca::make_root(domain, number, now, rand::random())?;
                        if let Some(old) = old {
                            let cross = ca::cross_sign(&old.pair, &pair, domain, number, now, rand::random())?;
                            made.push((CROSS.to_owned(), bytes(&cross)));
                        }
                        made.push(("ca.crt".to_owned(), bytes(&pair.certificate)));
                        pair
                    }
                    (Tier::Issuing, Some(root)) => {
                        made.push(("ca.crt".to_owned(), bytes(&root.pair.certificate)));
                        ca::make_issuing(&root.pair, domain, number, now, rand::random())?
                    }
                    (Tier::Issuing, None) => return Ok(()),
                };
                made.push(("tls.crt".to_owned(), bytes(&pair.certificate)));
                made.push(("tls.key".to_owned(), bytes(&pair.key.0)));
                let mut secret = install::secret(&name(tier, number), "kubernetes.io/tls", made.into_iter().collect());
                secret.labels_mut().insert(TIER.to_owned(), tier.as_str().to_owned());
                let asked = if tier == Tier::Root { &asked.root } else { &asked.issuing };
                if let Some(asked) = asked {
                    secret.annotations_mut().insert(ASKED.to_owned(), asked.clone());
                }
                apply::create_once(api, &secret).await?;
            }
            Step::Activate(tier, number) => {
                if let Some(held) = self.held.get(&(tier, number)) {
                    let mut secret = held.secret.0.clone();
                    secret.annotations_mut().insert(ACTIVE.to_owned(), now.to_string());
                    replace(api, secret).await?;
                }
            }
            Step::Remove(tier, number) => {
                if let Some(held) = self.held.get(&(tier, number)) {
                    let this = Preconditions { uid: held.secret.0.uid(), resource_version: None };
                    let params = DeleteParams { preconditions: Some(this), ..DeleteParams::default() };
                    match api.delete(&name(tier, number), &params).await {
                        Ok(_) => {}
                        Err(error) if apply::is_gone(&error) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_the_number() {
        for number_ in [1, 2, 10] {
            for tier in Tier::ALL {
                assert_eq!(number(tier, &name(tier, number_)), Some(number_));
            }
        }
        assert_eq!(number(Tier::Root, "liaison-ca-rooted"), None);
        assert_eq!(number(Tier::Root, "liaison-ca-issuing"), None);
    }
}
