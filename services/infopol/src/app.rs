//! The application: its state, its routes, and what every request goes through (whose certificate, how long, headers).

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use liaison_records::names::PartnerName;

use crate::{
    api, client_cert,
    metrics::Metrics,
    pages,
    problem::Problem,
    session::Sealer,
    store::{Kind, Refusal, Store},
    texts::Text,
};

/// Largest request body, in bytes: a form or a small JSON object.
const MAX_BODY: usize = 16 * 1024;

const CSP: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; \
                   frame-ancestors 'none'";

/// What the handlers share.
#[derive(Debug)]
pub struct App {
    /// The partner's journal.
    pub store: Store,
    /// Seals and opens sessions of the pages.
    pub sealer: Sealer,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// SPIFFE ID that the caller's certificate must have.
    partner_id: String,
}

impl App {
    /// An application for one partner of a domain.
    pub fn new(store: Store, sealer: Sealer, metrics: Arc<Metrics>, partner: &PartnerName, domain: &str) -> Self {
        let partner_id = client_cert::partner_id(domain, partner.as_str());
        Self { store, sealer, metrics, partner_id }
    }

    /// Counts a read and writes why it was refused, if it was.
    pub fn note<T>(&self, kind: Kind, result: &Result<T, Refusal>) {
        match result {
            Ok(_) => self.metrics.read(kind.as_str(), "allowed"),
            Err(refusal) => {
                self.metrics.read(kind.as_str(), refusal.reason());
                if matches!(refusal, Refusal::NotLogged | Refusal::Unavailable(_)) {
                    tracing::error!(kind = kind.as_str(), error = %refusal, "a read failed");
                }
            }
        }
    }
}

/// Whose request this is, as far as the gateway says.
#[derive(Debug, Clone)]
pub struct Caller {
    /// SHA-256 of the partner's client certificate, hexadecimal.
    pub leaf: String,
    /// W3C traceparent.
    pub trace: Option<String>,
}

/// All routes behind the gateway.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(api::routes())
        .merge(pages::routes(&app))
        .fallback(pages::not_found)
        .method_not_allowed_fallback(|| async { Problem::invalid(Text::MethodNotAllowed) })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), require_partner))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe))
        .layer(middleware::from_fn(security_headers))
        .with_state(app)
}

async fn require_partner(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let mut headers = request.headers().get_all("client-cert").iter();
    let only = headers.next().filter(|_| headers.next().is_none());
    let leaf = only
        .and_then(|value| value.to_str().ok())
        .ok_or(client_cert::InvalidCertificate::Header)
        .and_then(|value| client_cert::leaf_of(value, &app.partner_id));
    match leaf {
        Ok(leaf) => {
            let trace = trace_of(request.headers());
            request.extensions_mut().insert(Caller { leaf, trace });
            next.run(request).await
        }
        Err(error) => {
            app.metrics.caller_refused();
            tracing::warn!(%error, "refused a caller that is not this partner");
            if request.uri().path().starts_with("/api/") {
                Problem::forbidden("wrong-certificate", Text::WrongCertificate).into_response()
            } else {
                pages::refused(request.headers(), Text::WrongCertificate)
            }
        }
    }
}

/// The `traceparent` header, if it is one.
fn trace_of(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    let lengths: Vec<usize> = value.split('-').map(str::len).collect();
    let fits = lengths == [2, 32, 16, 2] && value.bytes().all(|b| b == b'-' || matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    fits.then(|| value.to_owned())
}

async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    // The template of the route, never what was asked for.
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    let trace = trace_of(request.headers()).unwrap_or_default();
    let response = next.run(request).await;
    let took = started.elapsed();
    app.metrics.answered(&route, response.status().as_u16(), took.as_secs_f64());
    let code = response.status().as_u16();
    let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(method = method_name(&method), route, code, milliseconds, trace, identity = "asserted", "answered");
    response
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Not no-referrer: browsers then send `Origin: null` with forms, and the origin could not be checked.
        (header::REFERRER_POLICY, "same-origin"),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_traceparent_is_taken_into_logs() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_static(value));
            trace_of(&headers)
        };
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(of(good).as_deref(), Some(good));
        for bad in ["", "Tremblay", "00-4bf92f3577b34da6a3ce929d0e0e473G-00f067aa0ba902b7-01", "00-x-y-01"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
