//! One request of an accepted connection: judged again, then passed to the partner's InfoPol.

use std::{
    error::Error as StdError,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Body as _, Bytes, Incoming},
    header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue},
};
use tokio::time::timeout;

use crate::{
    authorise::{Facts, Now, Refusal, Stage, authorise},
    gate::Gate,
    headers,
    serve::Accepted,
    state::Partner,
    upstream::UpstreamError,
};

/// A response's body on its way down.
pub type ResponseBody = BoxBody<Bytes, Box<dyn StdError + Send + Sync>>;

/// What the proxy says itself, in both official languages.
pub(crate) struct Notice {
    pub(crate) status: StatusCode,
    pub(crate) en: &'static str,
    pub(crate) fr: &'static str,
}

pub(crate) const MISDIRECTED: Notice = Notice {
    status: StatusCode::MISDIRECTED_REQUEST,
    en: "This address serves another name.",
    fr: "Cette adresse sert un autre nom.",
};
pub(crate) const TOO_LARGE: Notice = Notice {
    status: StatusCode::PAYLOAD_TOO_LARGE,
    en: "The request is too large.",
    fr: "La requête est trop volumineuse.",
};
const NOT_ALLOWED: Notice = Notice {
    status: StatusCode::METHOD_NOT_ALLOWED,
    en: "This kind of request is not served.",
    fr: "Ce type de requête n'est pas pris en charge.",
};
const UNAVAILABLE: Notice = Notice {
    status: StatusCode::SERVICE_UNAVAILABLE,
    en: "InfoPol is not available at the moment. Please try again in a minute.",
    fr: "InfoPol n'est pas disponible en ce moment. Veuillez réessayer dans une minute.",
};
const TOO_SLOW: Notice = Notice {
    status: StatusCode::GATEWAY_TIMEOUT,
    en: "InfoPol did not answer in time. Please try again in a minute.",
    fr: "InfoPol n'a pas répondu à temps. Veuillez réessayer dans une minute.",
};

impl Notice {
    pub(crate) fn response(&self) -> Response<ResponseBody> {
        let text = format!("{}\n{}\n", self.en, self.fr);
        let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert("retry-after", HeaderValue::from_static("30"));
        }
        response
    }
}

/// Answers one request. Never fails: what cannot be answered ends the connection.
pub async fn answer(gate: Arc<Gate>, accepted: Arc<Accepted>, request: Request<Incoming>) -> Response<ResponseBody> {
    let started = Instant::now();
    let partner = match judge(&gate, &accepted, &request) {
        Ok(partner) => partner,
        Err(refusal) => {
            gate.refuse(accepted.partner.name.as_str(), refusal);
            if refusal == Refusal::WrongHost {
                // A misconfigured client is told; then the connection ends.
                accepted.last.cancel();
            } else {
                accepted.cut.cancel();
            }
            return MISDIRECTED.response();
        }
    };
    let traceparent = headers::traceparent(rand::random());
    let method = request.method().clone();
    let response = match forward(&gate, &accepted, &partner, &traceparent, request).await {
        Ok(response) => response,
        Err(notice) => notice.response(),
    };
    let status = response.status().as_u16();
    gate.metrics.answered(partner.name.as_str(), status);
    let trace = traceparent.get(3..35).unwrap_or_default();
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(partner = %partner.name, trace, %method, status, ms, "answered");
    response
}

fn judge(gate: &Gate, accepted: &Accepted, request: &Request<Incoming>) -> Result<Arc<Partner>, Refusal> {
    let named = request.uri().authority().map(axum::http::uri::Authority::as_str);
    let mut hosts = request.headers().get_all(HOST).iter();
    let header = hosts.next().map(|value| value.to_str().unwrap_or_default());
    // Where a request names its host twice, both must be the same.
    let host = match (named, header) {
        (Some(a), Some(b)) if !a.eq_ignore_ascii_case(b) => None,
        (a, b) => a.or(b),
    };
    let host = if hosts.next().is_some() { None } else { host };
    let stage = Stage::Request { leaf: Some(accepted.leaf), sni: accepted.sni.as_deref(), host };
    let facts = Facts { local: accepted.local, remote: accepted.remote, stage };
    let view = gate.view();
    let partner = authorise(&facts, &view, Now::read())?;
    if partner.name == accepted.partner.name { Ok(Arc::clone(partner)) } else { Err(Refusal::WrongSource) }
}

async fn forward(
    gate: &Gate,
    accepted: &Accepted,
    partner: &Partner,
    traceparent: &str,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, &'static Notice> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        gate.refuse(partner.name.as_str(), Refusal::BadRequest);
        return Err(&NOT_ALLOWED);
    }
    let limit = gate.limits.body;
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.or(request.body().size_hint().exact()).is_some_and(|n| n > limit as u64) {
        gate.refuse(partner.name.as_str(), Refusal::BadRequest);
        drain(request.into_body(), limit).await;
        return Err(&TOO_LARGE);
    }

    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", axum::http::uri::PathAndQuery::as_str);
    parts.uri = gate.upstream.uri(&partner.name, path).map_err(|error| unavailable(gate, partner, &error))?;
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    headers::upward(&mut parts.headers, &accepted.leaf_der, &partner.server_name, traceparent);
    let request = Request::from_parts(parts, Limited::new(body, limit));

    let response = match timeout(gate.limits.response, gate.upstream.call(&partner.name, request)).await {
        Err(_) => return Err(&TOO_SLOW),
        Ok(Ok(response)) => response,
        Ok(Err(error)) if is_too_large(&error) => {
            gate.refuse(partner.name.as_str(), Refusal::BadRequest);
            return Err(&TOO_LARGE);
        }
        Ok(Err(error)) => return Err(unavailable(gate, partner, &error)),
    };
    let (mut parts, body) = response.into_parts();
    headers::strip_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    Ok(Response::from_parts(parts, body.map_err(Into::into).boxed()))
}

/// Reads and drops some more of a body, since many clients read no answer before they have sent theirs.
pub(crate) async fn drain(mut body: Incoming, limit: usize) {
    let reading = async {
        let mut left = limit.saturating_mul(4);
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    let _ = timeout(Duration::from_secs(5), reading).await;
}

fn unavailable(gate: &Gate, partner: &Partner, error: &UpstreamError) -> &'static Notice {
    let mut cause = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        cause = format!("{cause}: {inner}");
        source = inner.source();
    }
    if let Some(suppressed) = gate.quiet.admit(partner.name.as_str(), "infopol", Instant::now()) {
        tracing::warn!(partner = %partner.name, error = cause, suppressed, "infopol did not answer");
    }
    &UNAVAILABLE
}

fn is_too_large(error: &UpstreamError) -> bool {
    let mut source: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(inner) = source {
        if inner.is::<LengthLimitError>() {
            return true;
        }
        source = inner.source();
    }
    false
}

/// How long things may take, how many of them there may be, and how large and fast they may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub body: usize,
    /// Longest time for a TLS handshake and for a request's header.
    pub header: Duration,
    /// Longest time until InfoPol's answer begins.
    pub response: Duration,
    /// Longest time in which a client takes nothing of what is sent to it.
    pub stall: Duration,
    /// Most connections a partner.
    pub connections: usize,
    /// Most bytes a second a partner, both ways together; 0: any number.
    pub rate: u32,
    /// Most requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// How long a request for a certificate is held until it is to come again.
    pub enrolment: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 1 << 20,
            header: Duration::from_secs(10),
            response: Duration::from_secs(30),
            stall: Duration::from_mins(1),
            connections: 128,
            rate: 1 << 24,
            streams: 64,
            enrolment: Duration::from_secs(8),
        }
    }
}
