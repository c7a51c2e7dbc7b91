//! What every page starts from: the language of its path, the terms in force, the session, and who asks.

use std::sync::Arc;

use askama::Template;
use axum::{
    RequestPartsExt,
    extract::{FromRequestParts, Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    middleware::Next,
    response::{Html, IntoResponse, Response},
};
use jiff::{Timestamp, tz::TimeZone};
use liaison_records::codes::{Code, Purpose};

use crate::{
    app::{App, Caller},
    problem::Problem,
    session::{self, Session},
    store::{Asker, Refusal, Terms},
    templates::{Frame, Message, SignOn, Toggle},
    texts::{Lang, Text},
    view::Context,
};

/// The language that the browser prefers.
pub fn preferred(headers: &HeaderMap) -> Lang {
    let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    accepted.map(Lang::preferred).unwrap_or_default()
}

/// A page.
pub fn render(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(page) => (status, Html(page)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A bilingual refusal: the page's language first, the other below it.
pub fn message(lang: Lang, problem: &Problem, as_of: Option<String>) -> Response {
    let frame = Frame { as_of, ..Frame::bare(lang, problem.title, Toggle::link(&path(lang.other(), ""))) };
    let mut response = render(problem.status, &Message { frame, title: problem.title, detail: problem.detail });
    if problem.status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
    }
    response
}

/// Path of a page; the sign-on page has no name.
pub fn path(lang: Lang, page: &str) -> String {
    if page.is_empty() { format!("/{}", lang.code()) } else { format!("/{}/{page}", lang.code()) }
}

/// Opens the session that a request brings, and seals it again, used now, into the answer: a layer around the pages.
pub async fn keep_session(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let now = Timestamp::now();
    let cookies = request.headers().get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let session = cookies.into_iter().find_map(|cookies| app.sealer.session_in(cookies, now));
    request.extensions_mut().insert(Opened(session.clone()));
    let mut response = next.run(request).await;
    if let Some(session) = session
        && !response.headers().contains_key(header::SET_COOKIE)
    {
        set_session(&app, &mut response, &session, now);
    }
    response
}

/// The session that a request brought.
#[derive(Debug, Clone)]
struct Opened(Option<Session>);

/// Keeps a session in the browser.
pub fn set_session(app: &App, response: &mut Response, session: &Session, now: Timestamp) {
    match app.sealer.cookie(session, now).map(|cookie| HeaderValue::from_str(&cookie)) {
        Ok(Ok(cookie)) => {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        Ok(Err(_)) => tracing::error!("a session is no header value"),
        Err(error) => tracing::error!(%error, "a session is lost"),
    }
}

/// What every page handler starts from.
#[derive(Debug)]
pub struct Visit {
    /// What the handlers share.
    pub app: Arc<App>,
    /// Language of the path.
    pub lang: Lang,
    /// The terms in force.
    pub terms: Terms,
    /// How values are shown.
    pub context: Context,
    /// The session, signed on or not.
    pub session: Option<Session>,
    caller: Caller,
    /// Whether the request came from a page of this origin.
    same_origin: bool,
}

/// Refuses with a page when there is no such language, or no terms are in force.
impl FromRequestParts<Arc<App>> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let lang = parts.extract::<Path<String>>().await.ok().and_then(|Path(lang)| Lang::parse(&lang));
        let Some(lang) = lang else { return Err(message(preferred(&parts.headers), &Problem::not_found(), None)) };
        let terms = app.store.terms().await;
        app.metrics.store(terms.as_ref().ok().map(Option::as_ref));
        let refuse = |refusal: &Refusal| message(lang, &Problem::from(refusal), None);
        let terms = terms.map_err(|refusal| {
            tracing::error!(error = %refusal, "the terms could not be read");
            refuse(&refusal)
        })?;
        let now = Timestamp::now();
        let terms = terms.filter(|terms| terms.is_open(now)).ok_or_else(|| refuse(&Refusal::Closed))?;
        let zone = TimeZone::get(&terms.time_zone).unwrap_or(TimeZone::UTC);
        let caller = parts.extensions.get::<Caller>().cloned();
        // The layer that names the caller stands before every route.
        let caller = caller.ok_or_else(|| refuse(&Refusal::Closed))?;
        Ok(Self {
            app: Arc::clone(app),
            lang,
            terms,
            context: Context { lang, zone, now },
            session: parts.extensions.get::<Opened>().and_then(|opened| opened.0.clone()),
            caller,
            same_origin: is_same_origin(&parts.headers),
        })
    }
}

impl Visit {
    /// What stands around a page of this visit.
    pub fn frame(&self, title: Text, toggle: Toggle) -> Frame {
        let as_of = self.terms.as_of;
        let signed_on = self.signed_on();
        Frame {
            partner: self.partner(),
            officer: signed_on.map(|(officer, _)| officer.as_str().to_owned()),
            purpose: signed_on.map(|(_, purpose)| self.label(purpose)),
            csrf: self.session.as_ref().map(|session| session.csrf.clone()).unwrap_or_default(),
            as_of: Some(self.as_of(as_of)),
            stale: self.context.stale(as_of),
            ..Frame::bare(self.lang, title, toggle)
        }
    }

    /// Officer and purpose, if somebody is signed on.
    pub fn signed_on(&self) -> Option<&(crate::request::OfficerId, String)> {
        self.session.as_ref().and_then(|session| session.signed_on.as_ref())
    }

    /// "Data as of".
    pub fn as_of(&self, as_of: Option<Timestamp>) -> String {
        as_of.map_or_else(|| self.lang.text(Text::NeverFilled), |at| self.context.instant(at))
    }

    fn partner(&self) -> String {
        let (en, fr) = &self.terms.partner;
        if self.lang == Lang::En { en.clone() } else { fr.clone() }
    }

    fn label(&self, purpose: &str) -> String {
        Purpose::parse(purpose).map_or_else(|| purpose.to_owned(), |purpose| self.lang.of(purpose.label()))
    }

    /// The sign-on page, under a session that has a token for its form.
    pub fn sign_on_page(mut self, status: StatusCode, errors: Vec<Text>, notice: Option<Text>) -> Response {
        let fresh = self.session.is_none();
        let session = self.session.take().unwrap_or_else(|| Session::begin(None, self.context.now));
        self.session = Some(session.clone());
        let page = SignOn {
            frame: self.frame(Text::SignOnTitle, Toggle::link(&path(self.lang.other(), ""))),
            lead: self.lang.fill(Text::SignOnLead, self.partner()),
            purposes: self.terms.purposes.iter().map(|code| (code.clone(), self.label(code))).collect(),
            errors,
            notice,
        };
        let mut response = render(status, &page);
        if fresh {
            set_session(&self.app, &mut response, &session, self.context.now);
        }
        response
    }

    /// Refuses a form that another site's page sent.
    #[allow(clippy::result_large_err, reason = "the page goes straight to axum")]
    pub fn check_origin(&self) -> Result<(), Response> {
        if self.same_origin { Ok(()) } else { Err(self.cross_site()) }
    }

    /// The page for a form that is not one of ours.
    pub fn cross_site(&self) -> Response {
        message(self.lang, &Problem::forbidden("cross-site", Text::CrossSite), None)
    }

    /// Who asks, or the page to show instead: the form is not one of ours, or nobody is signed on.
    #[allow(clippy::result_large_err, reason = "the page goes straight to axum")]
    pub fn asker(self, token: &str) -> Result<(Self, Asker), Response> {
        self.check_origin()?;
        let Some(Session { csrf, signed_on: Some((officer, purpose)), .. }) = self.session.clone() else {
            return Err(self.sign_on_page(StatusCode::FORBIDDEN, vec![], Some(Text::SessionEnded)));
        };
        if !session::same_token(&csrf, token) {
            return Err(self.cross_site());
        }
        let Caller { trace, leaf } = self.caller.clone();
        let asker = Asker { officer, purpose, lang: self.lang, trace, leaf };
        Ok((self, asker))
    }

    /// The page for a refused read.
    pub fn refusal(&self, refusal: &Refusal) -> Response {
        message(self.lang, &Problem::from(refusal), Some(self.as_of(self.terms.as_of)))
    }
}

/// A form must come from a page of this origin: `Sec-Fetch-Site` says so, and where a browser does not send it, `Origin`.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    match (text("sec-fetch-site"), text("origin"), text("host")) {
        (Some("same-origin"), _, _) | (None, None, _) => true,
        (None, Some(origin), Some(host)) => origin.strip_prefix("https://") == Some(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_must_come_from_this_origin() {
        let check = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            headers.insert("host", HeaderValue::from_static("vancouver-police.liaison.example.ca"));
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            is_same_origin(&headers)
        };
        assert!(check(&[("sec-fetch-site", "same-origin")]));
        assert!(check(&[("origin", "https://vancouver-police.liaison.example.ca")]));
        assert!(check(&[]), "a client that is no browser; the token still counts");
        for site in ["cross-site", "same-site", "none"] {
            assert!(!check(&[("sec-fetch-site", site)]), "{site}");
        }
        assert!(!check(&[("origin", "https://evil.example")]) && !check(&[("origin", "null")]));
    }
}
