//! What of a message's header crosses the proxy. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// Fields that end at this hop (RFC 9110 section 7.6.1).
const HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields by which a client could speak for the gateway. Also in the spelling with `_`, which some servers take for `-`.
fn forged(name: &str) -> bool {
    let name = name.replace('_', "-");
    name.starts_with("client-cert")
        || name.starts_with("x-forwarded")
        || name.starts_with("x-ssl-")
        || matches!(
            name.as_str(),
            "forwarded" | "x-real-ip" | "x-original-url" | "x-rewrite-url" | "traceparent" | "tracestate" | "baggage"
        )
}

/// Removes the fields of this hop, and those that `Connection` names.
pub fn strip_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all("connection")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP {
        headers.remove(name);
    }
}

/// Makes a client's header into the one that InfoPol gets.
///
/// `leaf` is the client's certificate in DER (RFC 9440 section 2.2); `host` the partner's server name.
pub fn upward(headers: &mut HeaderMap, leaf: &[u8], host: &str, traceparent: &str) {
    strip_hop(headers);
    headers.remove("expect");
    let remove: Vec<HeaderName> = headers.keys().filter(|name| forged(name.as_str())).cloned().collect();
    for name in remove {
        headers.remove(name);
    }
    // HTTP/2 may split Cookie into several fields; HTTP/1.1 has one (RFC 9113 section 8.2.3).
    let cookies: Vec<&[u8]> = headers.get_all("cookie").iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert("cookie", joined);
    }
    for (name, value) in [
        ("client-cert", format!(":{}:", STANDARD.encode(leaf))),
        ("traceparent", traceparent.to_owned()),
        ("host", host.to_owned()),
    ] {
        // Base64, hex and a DNS name are always valid values.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// A new `traceparent` (W3C Trace Context) from 24 random bytes, sampled.
pub fn traceparent(random: [u8; 24]) -> String {
    let (trace, span) = random.split_at(16);
    format!("00-{}-{}-01", hex::encode(trace), hex::encode(span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_client_could_forge_goes_up() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("client-cert", ":forged:"),
            ("client-cert-chain", ":forged:"),
            ("client_cert", ":forged:"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x_forwarded_host", "other"),
            ("forwarded", "for=10.0.0.1"),
            ("traceparent", "00-0-0-00"),
            ("baggage", "a=b"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("host", "else.example"),
            ("accept-language", "fr"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        upward(&mut headers, b"leaf", "p.liaison.example.ca", "00-1-2-01");
        let mut left: Vec<_> = headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(
            left,
            ["accept-language: fr", "client-cert: :bGVhZg==:", "host: p.liaison.example.ca", "traceparent: 00-1-2-01"]
        );
    }

    #[test]
    fn traceparent_has_its_form() {
        assert_eq!(traceparent([7; 24]), format!("00-{}-{}-01", "07".repeat(16), "07".repeat(8)));
    }
}
