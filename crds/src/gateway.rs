//! Shards of the gateway: each a UDP port with keys of its own, and one Lease. Every name of a shard's follows from its own.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::PartnerConnectionStatus;

/// The shard of a connection that names none: the only one of the versions before there were several.
pub const FIRST: &str = "gateway";

/// What a shard's name looks like: a Deployment, a Service, a Lease and a Secret bear it.
pub const PATTERN: &str = "^gateway(-[a-z0-9]{1,20})?$";

/// Most characters of a shard's name.
pub const LONGEST: usize = 28;

/// The label of a gateway's pod that says of which shard it is.
pub const LABEL: &str = "federation.csc-scc.gc.ca/gateway";

/// The name of a shard: `gateway`, or `gateway-` and up to twenty lower-case letters and digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GatewayName(String);

/// Not a shard's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' must be 'gateway', or 'gateway-' and 1 to 20 lower-case letters and digits")]
pub struct BadGatewayName(String);

impl GatewayName {
    /// As a text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The Secret of its own WireGuard keys.
    pub fn wireguard_secret(&self) -> String {
        format!("{}-wireguard", self.0)
    }
}

impl FromStr for GatewayName {
    type Err = BadGatewayName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good = match text.strip_prefix(FIRST) {
            Some("") => true,
            Some(rest) => rest.strip_prefix('-').is_some_and(|rest| {
                (1..=20).contains(&rest.len())
                    && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            }),
            None => false,
        };
        if good { Ok(Self(text.to_owned())) } else { Err(BadGatewayName(text.to_owned())) }
    }
}

impl TryFrom<String> for GatewayName {
    type Error = BadGatewayName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<GatewayName> for String {
    fn from(name: GatewayName) -> Self {
        name.0
    }
}

impl fmt::Display for GatewayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The shard that serves a connection, by its status. One without a word of it is the first's: it was written before there were
/// several, or nobody has given the connection a place yet.
pub fn of(status: Option<&PartnerConnectionStatus>) -> &str {
    let told = status.and_then(|status| status.connection.as_ref());
    told.and_then(|connection| connection.gateway.as_deref()).unwrap_or(FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_lower_case() {
        let longest = format!("gateway-{}", "a".repeat(20));
        for good in ["gateway", "gateway-2", "gateway-east", longest.as_str()] {
            assert_eq!(good.parse::<GatewayName>().unwrap().as_str(), good);
        }
        assert_eq!(longest.len(), LONGEST);
        let long = format!("{longest}a");
        for bad in ["", "east", "gateway-", "gateway-East", "gateway-a-b", "gatewayeast", "gateway east", long.as_str()]
        {
            assert!(bad.parse::<GatewayName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_status_that_names_none_is_the_firsts() {
        let ends = serde_json::json!({"ipv4": "100.72.0.1", "ipv6": "fd4c::1"});
        let mut status = serde_json::json!({"observedGeneration": 1, "connection": {
            "endpoint": "g:1", "gatewayPublicKeys": [], "partnerAddresses": ends, "gatewayAddresses": ends, "serverName": "a", "caBundle": "",
        }});
        let shard = |status: &serde_json::Value| of(serde_json::from_value(status.clone()).ok().as_ref()).to_owned();
        assert_eq!((of(None), shard(&status).as_str()), ("gateway", "gateway"));
        status["connection"]["gateway"] = "gateway-east".into();
        assert_eq!(shard(&status), "gateway-east");
    }
}
