//! Shards of the gateway: where partners reach each, and to which one a partner belongs. Pure.
//!
//! A partner stays where it is as long as its shard exists, since its people enter the endpoint by hand. Which one a new partner gets
//! follows from its name alone: nobody counts, two operators choose the same, and a shard that comes or goes moves no other's partners.

use std::{collections::BTreeMap, fmt, str::FromStr};

use liaison_crds::{GatewayName, PartnerConnection, acceptance::Refusal, gateway::BadGatewayName};
use sha2::{Digest, Sha256};

/// Most shards. Status has room for the words of sixteen, and those of shards that are gone stay in it.
const MOST: usize = 8;

/// Where partners reach a shard, each host:port, UDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// Its first listener.
    pub first: String,
    /// Its second, by which its own key changes; none: it cannot.
    pub second: Option<String>,
}

/// All shards, as the chart says them: `gateway=host:port,host:port gateway-east=host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shards(BTreeMap<GatewayName, Endpoints>);

/// The shards cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadShards {
    /// There is none.
    #[error("at least one shard must be named: gateway=<host>:<port>")]
    Empty,
    /// There are too many.
    #[error("there must be at most {MOST} shards")]
    TooMany,
    /// A shard without an endpoint.
    #[error("'{0}' must be <shard>=<host>:<port>, and after a comma the second endpoint if there is one")]
    NoEndpoint(String),
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] BadGatewayName),
    /// An endpoint that is none.
    #[error("endpoint '{0}' must be <host>:<port>")]
    Endpoint(String),
    /// A shard, or an endpoint, that stands there twice.
    #[error("'{0}' must be named once: each shard, and each of its listeners, has an endpoint of its own")]
    Twice(String),
}

impl FromStr for Shards {
    type Err = BadShards;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = BTreeMap::new();
        let mut seen: Vec<&str> = Vec::new();
        for word in text.split_whitespace() {
            let (name, endpoints) = word.split_once('=').ok_or_else(|| BadShards::NoEndpoint(word.to_owned()))?;
            let (first, second) = endpoints.split_once(',').map_or((endpoints, None), |(one, two)| (one, Some(two)));
            for endpoint in [Some(first), second].into_iter().flatten() {
                if !is_endpoint(endpoint) {
                    return Err(BadShards::Endpoint(endpoint.to_owned()));
                }
                if seen.contains(&endpoint) {
                    return Err(BadShards::Twice(endpoint.to_owned()));
                }
                seen.push(endpoint);
            }
            let endpoints = Endpoints { first: first.to_owned(), second: second.map(str::to_owned) };
            if all.insert(name.parse()?, endpoints).is_some() {
                return Err(BadShards::Twice(name.to_owned()));
            }
        }
        match all.len() {
            0 => Err(BadShards::Empty),
            more if more > MOST => Err(BadShards::TooMany),
            _ => Ok(Self(all)),
        }
    }
}

fn is_endpoint(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

impl fmt::Display for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, Endpoints { first, second })) in self.0.iter().enumerate() {
            let (space, comma) = (if place > 0 { " " } else { "" }, if second.is_some() { "," } else { "" });
            write!(f, "{space}{name}={first}{comma}{}", second.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }
}

impl Shards {
    /// Each with its endpoints, by name.
    pub fn all(&self) -> impl Iterator<Item = (&GatewayName, &Endpoints)> {
        self.0.iter()
    }

    /// Why a connection is not accepted, if its manifest asks for a shard that there is not.
    pub fn refuses(&self, connection: &PartnerConnection) -> Option<Refusal> {
        let asked = connection.spec.gateway.as_ref()?;
        let names: Vec<&str> = self.0.keys().map(GatewayName::as_str).collect();
        let missing = !names.contains(&asked.as_str());
        missing.then(|| Refusal::GatewayNotFound { gateway: asked.clone(), known: names.join(", ") })
    }
}

/// A partner's shard of those that there are: the one that its manifest asks for, else the one that it has, else the one that its name
/// falls to (the highest random weight). One that there is not is as if it had not been named. None: there is no shard.
pub fn choose<'a, V>(
    partner: &str,
    asked: Option<&str>,
    held: Option<&str>,
    shards: &'a BTreeMap<GatewayName, V>,
) -> Option<(&'a GatewayName, &'a V)> {
    let named = |name: &str| shards.iter().find(|(shard, _)| shard.as_str() == name);
    let weight = |shard: &GatewayName| Sha256::digest(format!("{shard}/{partner}"));
    asked
        .and_then(named)
        .or_else(|| held.and_then(named))
        .or_else(|| shards.iter().max_by_key(|(shard, _)| weight(shard)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(names: &[&str]) -> BTreeMap<GatewayName, usize> {
        names.iter().enumerate().map(|(place, name)| (name.parse().unwrap(), place)).collect()
    }

    fn chosen(partner: &str, asked: Option<&str>, held: Option<&str>, names: &[&str]) -> String {
        choose(partner, asked, held, &shards(names)).unwrap().0.to_string()
    }

    #[test]
    fn shards_are_read_as_they_are_written_and_what_is_wrong_is_said() {
        for good in ["gateway=g:1", "gateway=a.example.ca:31820,[fd00::1]:31821 gateway-east=b:1"] {
            assert_eq!(good.parse::<Shards>().unwrap().to_string(), good);
        }
        let why = |text: &str| text.parse::<Shards>().unwrap_err();
        assert_eq!(why(" "), BadShards::Empty);
        assert_eq!(why("gateway"), BadShards::NoEndpoint("gateway".into()));
        for bad in ["gateway=", "gateway=g", "gateway=g:0", "gateway=g:99999", "gateway=:1", "gateway=g:1,"] {
            assert!(matches!(why(bad), BadShards::Endpoint(_)), "{bad}");
        }
        assert!(matches!(why("east=g:1"), BadShards::Name(_)));
        assert_eq!(why("gateway=g:1 gateway=g:2"), BadShards::Twice("gateway".into()));
        assert_eq!(why("gateway=g:1 gateway-a=g:1"), BadShards::Twice("g:1".into()));
        let many: Vec<String> = (0..9).map(|n| format!("gateway-{n}=g:{}", n + 1)).collect();
        assert_eq!(why(&many.join(" ")), BadShards::TooMany);
    }

    #[test]
    fn a_partner_stays_and_whoever_asks_is_moved() {
        let (one, all) = (["gateway"], ["gateway", "gateway-a", "gateway-b"]);
        for n in 0..50 {
            let partner = format!("partner-{n}");
            let first = chosen(&partner, None, None, &one);
            assert_eq!(first, "gateway");
            // More shards move nobody who has one.
            assert_eq!(chosen(&partner, None, Some(&first), &all), "gateway");
            assert_eq!(chosen(&partner, Some("gateway-b"), Some(&first), &all), "gateway-b");
            assert_eq!(chosen(&partner, None, Some("gateway-b"), &all), "gateway-b", "asked no more");
            // One that there is not: as before, or as for a new partner.
            assert_eq!(chosen(&partner, Some("gateway-x"), Some("gateway-b"), &all), "gateway-b");
            let new = chosen(&partner, None, None, &all);
            assert_eq!(chosen(&partner, None, Some("gateway-x"), &all), new);
            // Its shard alone goes: only its partners move.
            let left: Vec<&str> = all.into_iter().filter(|name| *name != "gateway-a").collect();
            if new != "gateway-a" {
                assert_eq!(chosen(&partner, None, None, &left), new);
            }
        }
        assert!(choose("p", None, None, &shards(&[])).is_none());
    }

    #[test]
    fn new_partners_spread_over_the_shards() {
        let all = ["gateway", "gateway-a", "gateway-b", "gateway-c"];
        let mut counts = BTreeMap::<String, u32>::new();
        for n in 0..1000 {
            *counts.entry(chosen(&format!("partner-{n}"), None, None, &all)).or_default() += 1;
        }
        assert!(counts.len() == 4 && counts.values().all(|count| (200..300).contains(count)), "{counts:?}");
    }
}
