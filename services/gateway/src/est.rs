//! Enrolment over Secure Transport (RFC 7030) on its own port of the partner's gateway address: `cacerts`, `simpleenroll` with
//! the one-time token, `simplereenroll` with a leaf that is accepted. Nothing else is served there, and nothing reaches InfoPol.
//!
//! The server authenticates itself; the client is known by its tunnel address, and by token or leaf. A request is held while
//! the operator decides, and after a while the client is told to come again with the same request (202, Retry-After).

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
    server::conn,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use liaison_crds::enrolment::Grounds;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::time::{sleep, timeout};

use crate::{
    authorise::{Facts, Now, Refusal, Stage, authorise, names},
    connections::{Door, Registered},
    enrolment::{self, Answer, Asked, BadToken, MAX_BODY},
    gate::Gate,
    pkcs7,
    proxy::{MISDIRECTED, Notice, ResponseBody, TOO_LARGE, drain},
    serve::secure,
    state::{Fingerprint, Partner},
    stream::CutStream,
    tunnel::filter::ENROLMENT,
};

/// Where EST's operations are (RFC 7030 3.2.2).
const ROOT: &str = "/.well-known/est/";
/// In how many seconds a client is to come again.
const COME_AGAIN: HeaderValue = HeaderValue::from_static("10");
/// Between two looks at a request that is not decided.
const LOOK: Duration = Duration::from_millis(200);

const NOT_FOUND: Notice = Notice {
    status: StatusCode::NOT_FOUND,
    en: "Only /.well-known/est/cacerts, simpleenroll and simplereenroll are served here.",
    fr: "Seuls /.well-known/est/cacerts, simpleenroll et simplereenroll sont servis ici.",
};
const NOT_PKCS10: Notice = Notice {
    status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
    en: "The Content-Type must be application/pkcs10.",
    fr: "Le Content-Type doit être application/pkcs10.",
};
const BAD_REQUEST: Notice = Notice {
    status: StatusCode::BAD_REQUEST,
    en: "The body must be one PKCS#10 request in base64, with an ECDSA key on P-256 or P-384, signed with that key.",
    fr: "Le corps doit être une demande PKCS#10 en base64, avec une clé ECDSA sur P-256 ou P-384, signée avec cette clé.",
};
const TOO_MANY: Notice = Notice {
    status: StatusCode::TOO_MANY_REQUESTS,
    en: "Too many requests for certificates. Please try again in a minute.",
    fr: "Trop de demandes de certificat. Veuillez réessayer dans une minute.",
};
const WRONG_TOKEN: Notice = Notice {
    status: StatusCode::UNAUTHORIZED,
    en: "The partner's name and its enrolment token are needed, as user and password.",
    fr: "Le nom du partenaire et son jeton d'inscription sont nécessaires, comme utilisateur et mot de passe.",
};
const TOKEN_EXPIRED: Notice = Notice {
    status: StatusCode::FORBIDDEN,
    en: "The token can no longer be used. Ask CSC for a new one.",
    fr: "Le jeton ne peut plus être utilisé. Demandez-en un nouveau au SCC.",
};
const TOKEN_USED: Notice = Notice {
    status: StatusCode::FORBIDDEN,
    en: "The token has been used. If it was not by you, call CSC at once; else ask CSC for a new one.",
    fr: "Le jeton a été utilisé. Si ce n'était pas par vous, appelez le SCC immédiatement; sinon, demandez-en un nouveau.",
};
const NO_LEAF: Notice = Notice {
    status: StatusCode::FORBIDDEN,
    en: "A renewal needs the certificate that is in use, in the TLS handshake.",
    fr: "Un renouvellement exige le certificat en service, dans la négociation TLS.",
};
const KEY_REFUSED: Notice = Notice {
    status: StatusCode::FORBIDDEN,
    en: "This key cannot be used: another partner has it, or it was revoked. Make a new key.",
    fr: "Cette clé ne peut pas être utilisée: un autre partenaire la détient, ou elle a été révoquée. Créez une nouvelle clé.",
};
const DENIED: Notice = Notice {
    status: StatusCode::FORBIDDEN,
    en: "The request was denied. CSC can see why in the status of your connection.",
    fr: "La demande a été refusée. Le SCC peut en voir la raison dans le statut de votre connexion.",
};
const COME_BACK: Notice = Notice {
    status: StatusCode::ACCEPTED,
    en: "Not decided yet. Please send the same request again.",
    fr: "Pas encore décidé. Veuillez envoyer la même demande à nouveau.",
};
const UNAVAILABLE: Notice = Notice {
    status: StatusCode::SERVICE_UNAVAILABLE,
    en: "Certificates cannot be issued at the moment. Please send the same request again in a minute.",
    fr: "Aucun certificat ne peut être émis en ce moment. Veuillez envoyer la même demande à nouveau dans une minute.",
};

/// Who is at the other end of a connection.
struct Caller {
    partner: Arc<Partner>,
    local: IpAddr,
    remote: IpAddr,
    leaf: Option<Fingerprint>,
    sni: Option<String>,
}

impl Caller {
    /// Judges it by what is in force now.
    fn judge(&self, gate: &Gate) -> Result<Arc<Partner>, Refusal> {
        let stage = Stage::Enrolling { leaf: self.leaf, sni: self.sni.as_deref() };
        let view = gate.view();
        let facts = Facts { local: self.local, remote: self.remote, stage };
        let partner = authorise(&facts, &view, Now::read())?;
        if partner.name == self.partner.name { Ok(Arc::clone(partner)) } else { Err(Refusal::WrongSource) }
    }
}

/// Serves a connection whose two addresses agree.
pub(crate) async fn serve(
    gate: &Arc<Gate>,
    registered: &Registered,
    local: IpAddr,
    remote: IpAddr,
    stream: CutStream,
) -> Result<(), Refusal> {
    let opened = {
        let view = gate.view();
        Arc::clone(authorise(&Facts { local, remote, stage: Stage::Opened }, &view, Now::read())?)
    };
    if opened.enrolment.is_none() {
        return Err(Refusal::NoEnrolment);
    }
    let config = gate.enrolling().ok_or(Refusal::Stale)?.config;
    let stream = secure(gate, config, stream).await?;
    let (_, session) = stream.get_ref();
    let sni = session.server_name().map(str::to_owned);
    let leaf = session.peer_certificates().and_then(<[_]>::first).map(|leaf| Fingerprint::of(leaf));
    registered.accepted(leaf, sni.clone(), Door::Enrolment);
    // After it is in the index: a change of the table is seen either here or by the recheck.
    let caller = Arc::new(Caller { partner: opened, local, remote, leaf, sni });
    caller.judge(gate)?;

    let service = service_fn(|request: Request<Incoming>| {
        let (gate, caller) = (Arc::clone(gate), Arc::clone(&caller));
        async move { Ok::<_, std::convert::Infallible>(answer(&gate, &caller, request).await) }
    });
    // One request a connection. How it ends is the client's business.
    let _ = conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(gate.limits.header)
        .max_buf_size(16 * 1024)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    Ok(())
}

async fn answer(gate: &Gate, caller: &Caller, request: Request<Incoming>) -> Response<ResponseBody> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let partner = caller.partner.name.as_str();
    let response = match Box::pin(route(gate, caller, request)).await {
        Ok(response) => response,
        Err((refusal, notice)) => {
            if let Some(refusal) = refusal {
                gate.refuse(partner, refusal);
            }
            said(notice)
        }
    };
    // Only paths that are served are told: others are whatever a client writes.
    let operation = path.strip_prefix(ROOT).filter(|_| response.status() != StatusCode::NOT_FOUND).unwrap_or_default();
    tracing::info!(partner, operation, %method, status = response.status().as_u16(), "enrolment answered");
    response
}

/// What the client is told, and as what it is counted if it is a refusal.
type Refused = (Option<Refusal>, &'static Notice);

fn said(notice: &Notice) -> Response<ResponseBody> {
    let mut response = notice.response();
    if matches!(notice.status, StatusCode::ACCEPTED | StatusCode::TOO_MANY_REQUESTS) {
        response.headers_mut().insert(RETRY_AFTER, COME_AGAIN);
    }
    if notice.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Liaison EST\""));
    }
    response
}

async fn route(gate: &Gate, caller: &Caller, request: Request<Incoming>) -> Result<Response<ResponseBody>, Refused> {
    let partner = caller.judge(gate).map_err(|refusal| (Some(refusal), &MISDIRECTED))?;
    if !addressed(&request, &partner.server_name) {
        return Err((Some(Refusal::WrongHost), &MISDIRECTED));
    }
    let operation = request.uri().path().strip_prefix(ROOT).unwrap_or_default().to_owned();
    match (request.method(), operation.as_str()) {
        (&Method::GET, "cacerts") => Ok(certificates(&authorities(gate, &partner))),
        // Nothing of a request counts but its key (RFC 7030 4.5.2).
        (&Method::GET, "csrattrs") => {
            let mut response = said(&NOT_FOUND);
            *response.status_mut() = StatusCode::NO_CONTENT;
            *response.body_mut() = Full::default().map_err(|never| match never {}).boxed();
            response.headers_mut().remove(CONTENT_TYPE);
            Ok(response)
        }
        (&Method::POST, "simpleenroll") => enrol(gate, caller, &partner, request, false).await,
        (&Method::POST, "simplereenroll") => enrol(gate, caller, &partner, request, true).await,
        _ => Err((None, &NOT_FOUND)),
    }
}

/// Whether the request names this server, with or without the port, once.
fn addressed(request: &Request<Incoming>, server_name: &str) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).unwrap_or_default();
    let port = format!(":{ENROLMENT}");
    hosts.next().is_none() && names(host.strip_suffix(port.as_str()).unwrap_or(host), server_name)
}

async fn enrol(
    gate: &Gate,
    caller: &Caller,
    partner: &Partner,
    request: Request<Incoming>,
    again: bool,
) -> Result<Response<ResponseBody>, Refused> {
    if !gate.asking.admit(&partner.name, Instant::now()) {
        return Err((Some(Refusal::TooManyRequests), &TOO_MANY));
    }
    let (head, body) = request.into_parts();
    let text = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let body = read(gate, body).await?;
    let kind = text(CONTENT_TYPE).and_then(|kind| kind.split(';').next()).unwrap_or_default();
    if !kind.trim().eq_ignore_ascii_case("application/pkcs10") {
        return Err((Some(Refusal::BadRequest), &NOT_PKCS10));
    }
    let Some((request, key)) = enrolment::request(&body) else {
        return Err((Some(Refusal::BadRequest), &BAD_REQUEST));
    };
    let grounds = if again {
        let leaf = caller.leaf.ok_or((Some(Refusal::NoCertificate), &NO_LEAF))?;
        Grounds::Leaf(leaf.to_string())
    } else {
        let wrong = Some(Refusal::WrongToken);
        enrolment::token(partner, text(AUTHORIZATION), &key, Now::read().wall).map_err(|bad| match bad {
            BadToken::Wrong => (wrong, &WRONG_TOKEN),
            BadToken::Expired => (wrong, &TOKEN_EXPIRED),
            BadToken::Used => (wrong, &TOKEN_USED),
        })?
    };
    let asked = Asked { namespace: gate.namespace.clone(), partner: partner.name.clone(), grounds, request };
    decided(gate, caller, &asked).await
}

/// Reads a body within its limits of size and time.
async fn read(gate: &Gate, mut body: Incoming) -> Result<Bytes, Refused> {
    let read = timeout(gate.limits.header, Limited::new(&mut body, MAX_BODY).collect()).await;
    match read {
        Err(_) => Err((Some(Refusal::Timeout), &BAD_REQUEST)),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => {
            drain(body, MAX_BODY).await;
            Err((Some(Refusal::BadRequest), &TOO_LARGE))
        }
    }
}

/// Waits for the operator's word, and until this gateway accepts what was issued: who has the certificate can use it.
async fn decided(gate: &Gate, caller: &Caller, asked: &Asked) -> Result<Response<ResponseBody>, Refused> {
    let until = Instant::now() + gate.limits.enrolment;
    loop {
        match gate.certificates.ask(asked).await {
            Ok(Answer::Pending) => {}
            Ok(Answer::Denied(reason)) => {
                tracing::warn!(partner = %asked.partner, request = asked.name(), reason, "request for a certificate denied");
                return Err((Some(Refusal::Denied), denial(&reason)));
            }
            Ok(Answer::Issued(pem)) => {
                let leaf = CertificateDer::from_pem_slice(&pem).map_err(|_| (None, &UNAVAILABLE))?;
                let accepted = caller.judge(gate).map_err(|refusal| (Some(refusal), &DENIED))?;
                if accepted.leaves.contains_key(&Fingerprint::of(&leaf)) {
                    return Ok(certificates(&[leaf]));
                }
            }
            Err(error) => {
                if let Some(suppressed) = gate.quiet.admit(asked.partner.as_str(), "enrolment", Instant::now()) {
                    tracing::warn!(partner = %asked.partner, error, suppressed, "no certificate could be asked for");
                }
                return Err((None, &UNAVAILABLE));
            }
        }
        if Instant::now() + LOOK >= until {
            return Err((None, &COME_BACK));
        }
        sleep(LOOK).await;
    }
}

/// The operator's reasons, as the client is told them.
fn denial(reason: &str) -> &'static Notice {
    match reason {
        "RequestInvalid" => &BAD_REQUEST,
        "TokenUnknown" => &WRONG_TOKEN,
        "TokenExpired" => &TOKEN_EXPIRED,
        "TokenUsed" => &TOKEN_USED,
        "LeafUnknown" => &NO_LEAF,
        "KeyInUse" | "KeyRevoked" => &KEY_REFUSED,
        _ => &DENIED,
    }
}

/// The roots and every issuing certificate that the partner may need for a chain, each once (RFC 7030 4.1.3).
fn authorities(gate: &Gate, partner: &Partner) -> Vec<CertificateDer<'static>> {
    let mut all = gate.enrolling().map(|enrolling| enrolling.authorities).unwrap_or_default();
    let issuers = partner.enrolment.iter().flat_map(|enrolment| &enrolment.issuers);
    for issuer in issuers.map(|der| CertificateDer::from(der.clone())) {
        if !all.contains(&issuer) {
            all.push(issuer);
        }
    }
    all
}

fn certificates(all: &[CertificateDer<'_>]) -> Response<ResponseBody> {
    let body = Full::new(Bytes::from(pkcs7::base64_lines(&pkcs7::certs_only(all))));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/pkcs7-mime; smime-type=certs-only"));
    headers.insert("content-transfer-encoding", HeaderValue::from_static("base64"));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    response
}
