//! Has statements signed: an unsigned row of the hub becomes a ConfigMap, the operator signs it there, and the signature comes
//! back to the row. Each step may be repeated, so a process killed between any two loses nothing. The newest checkpoint stays
//! where it was signed ([`crate::witness`]); what it has seen and the hub has not stops signing.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client as Kubernetes, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
};
use liaison_records::{
    evidence::Mark,
    statement::{Id, Kind, LABEL, keys},
};
use tokio_postgres::Client;

use crate::{
    checkpoint,
    connect::Target,
    error::{Error, Of},
    signature,
    telemetry::Metrics,
    witness::{self, Known},
};

/// How many statements are out at a time.
const MOST: i64 = 20;

/// A statement that waits for its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsigned {
    /// Which.
    pub id: Id,
    /// What is signed.
    pub text: String,
}

/// A signature as it came back, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// DER.
    pub signature: Vec<u8>,
    /// The key's id.
    pub key_id: String,
    /// PEM.
    pub chain: String,
    /// RFC 3339.
    pub signed_at: String,
}

/// What is to be done about one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It is brought to the operator.
    Publish,
    /// It is out, and not signed yet.
    Wait,
    /// The signature is stored, and then the object removed.
    Store(Signed),
    /// What is there is not of this statement, or its signature does not count: it is removed, and published anew.
    Remove(String),
}

/// Decides about one statement, given the object of its name.
pub fn step(unsigned: &Unsigned, object: Option<&ConfigMap>) -> Step {
    let Some(object) = object else { return Step::Publish };
    let get = |key: &str| object.data.as_ref().and_then(|data| data.get(key)).map(String::as_str);
    if get(keys::STATEMENT) != Some(&unsigned.text) {
        return Step::Remove("it holds another text".to_owned());
    }
    if let Some(why) = get(keys::REFUSED) {
        return Step::Remove(format!("the operator refused it: {why}"));
    }
    let (Some(encoded), Some(key_id), Some(chain), Some(signed_at)) =
        (get(keys::SIGNATURE), get(keys::KEY_ID), get(keys::CHAIN), get(keys::SIGNED_AT))
    else {
        return Step::Wait;
    };
    let Ok(bytes) = STANDARD.decode(encoded) else { return Step::Remove("its signature is not base64".to_owned()) };
    if signed_at.parse::<jiff::Timestamp>().is_err() {
        return Step::Remove("its time of signing cannot be read".to_owned());
    }
    match signature::check(&unsigned.text, &bytes, key_id, chain) {
        Ok(()) => Step::Store(Signed {
            signature: bytes,
            key_id: key_id.to_owned(),
            chain: chain.to_owned(),
            signed_at: signed_at.to_owned(),
        }),
        Err(error) => Step::Remove(error.to_string()),
    }
}

/// The oldest statements without a signature.
pub async fn unsigned(hub: &Client) -> Result<Vec<Unsigned>, Error> {
    let rows = hub
        .query(
            "SELECT kind, partner, number, statement FROM liaison.statement WHERE signature IS NULL
             ORDER BY at, kind, partner, number LIMIT $1",
            &[&MOST],
        )
        .await
        .hub()?;
    rows.iter()
        .map(|row| {
            let kind: &str = row.try_get(0).hub()?;
            let kind = kind.parse().map_err(|_| Error::Corrupt("liaison.statement has an unknown kind".to_owned()))?;
            let id = Id { kind, partner: row.try_get(1).hub()?, number: row.try_get(2).hub()? };
            Ok(Unsigned { id, text: row.try_get(3).hub()? })
        })
        .collect()
}

/// Puts a signature beside its statement; a second one changes nothing.
pub async fn store(hub: &Client, unsigned: &Unsigned, signed: &Signed) -> Result<(), Error> {
    let Unsigned { id, text } = unsigned;
    hub.execute(
        "UPDATE liaison.statement SET signature = $5, key_id = $6, chain = $7, signed_at = $8::text::timestamptz
         WHERE kind = $1 AND partner = $2 AND number = $3 AND statement = $4 AND signature IS NULL",
        &[
            &id.kind.as_str(),
            &id.partner,
            &id.number,
            text,
            &signed.signature,
            &signed.key_id,
            &signed.chain,
            &signed.signed_at,
        ],
    )
    .await
    .hub()?;
    Ok(())
}

/// What a round did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    /// Brought to the operator.
    pub published: usize,
    /// Signatures that the hub has now.
    pub stored: usize,
    /// Still out.
    pub waiting: usize,
    /// What the kept checkpoint has seen and the hub's ledger lacks: then nothing else was done.
    pub lost: Vec<Mark>,
}

/// One round: publishes, stores what is signed, and removes what is done with; all but the newest checkpoint, which is `known`
/// from then on.
pub async fn round(kubernetes: &Kubernetes, namespace: &str, hub: &Client, known: &Known) -> Result<Round, Error> {
    let refused = |error: kube::Error| Error::Kubernetes(error.to_string());
    let api: Api<ConfigMap> = Api::namespaced(kubernetes.clone(), namespace);
    // Listed before the rows are read: what is out and has no unsigned row then is done with, whoever else runs a round.
    let out = api.list(&ListParams::default().labels(LABEL)).await.map_err(refused)?;
    let mut out: BTreeMap<String, ConfigMap> = out.into_iter().map(|object| (object.name_any(), object)).collect();
    let witness = witness::newest(out.values());
    known.set(witness.clone());
    let mut round = Round::default();
    if let Some(witness) = &witness {
        round.lost = checkpoint::missing(hub, witness.marks.values()).await?;
        if !round.lost.is_empty() {
            return Ok(round);
        }
    }
    let open = unsigned(hub).await?;
    for unsigned in &open {
        let name = unsigned.id.object_name();
        let found = out.remove(&name);
        match step(unsigned, found.as_ref()) {
            Step::Publish => match api.create(&PostParams::default(), &object(unsigned)).await {
                Ok(_) => round.published += 1,
                // Another worker was quicker.
                Err(kube::Error::Api(status)) if status.is_already_exists() => round.waiting += 1,
                Err(error) => return Err(refused(error)),
            },
            Step::Wait => round.waiting += 1,
            Step::Store(signed) => {
                store(hub, unsigned, &signed).await?;
                round.stored += 1;
                match found.filter(|_| unsigned.id.kind == Kind::Checkpoint) {
                    Some(found) => drop(out.insert(name, found)),
                    None => remove(&api, &name).await?,
                }
            }
            Step::Remove(why) => {
                tracing::warn!(statement = name, why, "a statement is published anew");
                remove(&api, &name).await?;
            }
        }
    }
    // What is out and not awaited was stored by a round that did not get further. With more to do than fits, it may be awaited.
    if i64::try_from(open.len()).is_ok_and(|n| n < MOST) {
        let kept = witness::newest(out.values());
        let name = kept.as_ref().map(|kept| kept.name().to_owned());
        known.set(kept);
        for name in out.keys().filter(|other| Some(*other) != name.as_ref()) {
            remove(&api, name).await?;
        }
    }
    Ok(round)
}

const PERIOD: Duration = Duration::from_secs(5);
/// Every so many periods the API server is asked although nothing is unsigned, for what a killed process left and for what the
/// kept checkpoint says of the hub; and a checkpoint is made, if one is due.
const SWEEP: u32 = 12;

/// Rounds for ever.
pub async fn run(kubernetes: Kubernetes, namespace: String, hub: Target, known: Known, metrics: Arc<Metrics>) {
    let mut client: Option<Client> = None;
    let (mut waiting, mut lost) = (true, 0);
    for turn in 0_u32.. {
        tokio::time::sleep(PERIOD).await;
        let result = async {
            let client = match client.take().filter(|client| !client.is_closed()) {
                Some(kept) => client.insert(kept),
                None => client.insert(hub.connect().await?),
            };
            let sweep = turn % SWEEP == 0;
            if !waiting && !sweep && unsigned(client).await?.is_empty() {
                return Ok(Round::default());
            }
            let round = tokio::time::timeout(Duration::from_secs(60), round(&kubernetes, &namespace, client, &known))
                .await
                .map_err(|_| Error::Kubernetes("statements: no answer within 60 s".to_owned()))??;
            if sweep
                && round.lost.is_empty()
                && let Some(number) = checkpoint::if_due(client, checkpoint::SECONDS, checkpoint::BATCHES).await?
            {
                tracing::info!(number, "checkpoint of the ledger");
            }
            Ok::<_, Error>(round)
        }
        .await;
        match result {
            Ok(round) => {
                waiting = round != Round::default();
                metrics.ledger_lost(round.lost.len());
                if round.stored > 0 {
                    tracing::info!(stored = round.stored, waiting = round.waiting, "statements were signed");
                }
                if round.lost.len() != lost {
                    lost = round.lost.len();
                    let partners: Vec<&str> = round.lost.iter().take(20).map(|mark| mark.partner.as_str()).collect();
                    tracing::error!(
                        lost,
                        partners = partners.join(", "),
                        "chains whose end the hub's ledger lacks, as \
                        a signed checkpoint shows: nothing is signed, and nothing crosses to these partners, until the loss is \
                        accepted (liaison-sync ledger accept-loss)"
                    );
                }
            }
            Err(error) => {
                client = None;
                tracing::warn!(reason = error.reason(), "statements are not being signed: {error}");
            }
        }
    }
}

fn object(unsigned: &Unsigned) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(unsigned.id.object_name()),
            labels: Some(BTreeMap::from([
                (LABEL.to_owned(), unsigned.id.kind.as_str().to_owned()),
                ("app.kubernetes.io/managed-by".to_owned(), "liaison-sync".to_owned()),
                ("app.kubernetes.io/part-of".to_owned(), "liaison".to_owned()),
            ])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(keys::STATEMENT.to_owned(), unsigned.text.clone())])),
        ..ConfigMap::default()
    }
}

async fn remove(api: &Api<ConfigMap>, name: &str) -> Result<(), Error> {
    match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(Error::Kubernetes(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use liaison_records::statement::{self, Kind};

    use super::*;

    #[test]
    fn a_statement_is_published_waited_for_and_what_is_wrong_removed() {
        let id = Id { kind: Kind::Checkpoint, partner: String::new(), number: 1 };
        let text = statement::text(&id, "2026-11-22T00:00:00Z", serde_json::Map::new());
        let unsigned = Unsigned { id, text };
        assert_eq!(step(&unsigned, None), Step::Publish);
        let with = |more: &[(&str, &str)]| {
            let mut object = object(&unsigned);
            let data = object.data.get_or_insert_default();
            data.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
            step(&unsigned, Some(&object))
        };
        assert_eq!(with(&[]), Step::Wait);
        assert_eq!(with(&[("signature", "AA==")]), Step::Wait, "half written");
        let whole = [("signature", "AA=="), ("keyId", "k"), ("chain", "c"), ("signedAt", "2026-11-22T00:00:00Z")];
        for (wrong, says) in [
            (vec![("statement", "another")], "another text"),
            (vec![("refused", "no")], "refused it: no"),
            (whole.to_vec(), "chain cannot be read"),
            ([&whole[..], &[("signature", "?")]].concat(), "not base64"),
            ([&whole[..], &[("signedAt", "?")]].concat(), "time of signing"),
        ] {
            match with(&wrong) {
                Step::Remove(why) => assert!(why.contains(says), "{why}"),
                other => panic!("{wrong:?}: {other:?}"),
            }
        }
    }
}
