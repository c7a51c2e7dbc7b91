//! The pages for officers, at `/en` and `/fr`: plain forms and answers, no script.
//!
//! Every read is a POST with the session's token. The language toggle of an answer repeats the request in the other
//! language, which is read, and logged, again.

use std::{sync::Arc, time::Instant};

use askama::Template;
use axum::{
    Extension, Form, Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{Timestamp, tz::TimeZone};
use liaison_records::codes::{Code, Purpose};
use serde::Deserialize;

use crate::{
    app::{App, Caller},
    problem::Problem,
    request::{OfficerId, RawSearch, Search, parse_file},
    session::{self, Session},
    store::{Asker, Kind, Refusal, Terms},
    templates::{Frame, Message, ProfilePage, Results, SearchForm, SignOn, Toggle},
    texts::{Lang, Text},
    view::{self, Context},
};

/// The routes of the pages.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(root))
        .route("/assets/infopol.css", get(style))
        .route("/{lang}", get(sign_on_form))
        .route("/{lang}/sign-on", post(sign_on))
        .route("/{lang}/sign-off", post(sign_off))
        .route("/{lang}/search", get(search_form).post(search))
        .route("/{lang}/at-large", post(at_large))
        .route("/{lang}/file", post(file))
}

async fn root(headers: HeaderMap) -> Redirect {
    Redirect::to(&format!("/{}", preferred(&headers).code()))
}

async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("../assets/infopol.css")).into_response()
}

/// What is not here, in the language that the browser prefers.
pub async fn not_found(headers: HeaderMap) -> Response {
    message(preferred(&headers), &Problem::not_found(), None)
}

/// A page that refuses a request before anything is known of its session.
pub fn refused(headers: &HeaderMap, detail: Text) -> Response {
    message(preferred(headers), &Problem::forbidden("refused", detail), None)
}

fn preferred(headers: &HeaderMap) -> Lang {
    let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    accepted.map(Lang::preferred).unwrap_or_default()
}

fn render(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(page) => (status, Html(page)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A bilingual refusal: the page's language first, the other below it.
fn message(lang: Lang, problem: &Problem, as_of: Option<String>) -> Response {
    let frame = Frame { as_of, ..Frame::bare(lang, problem.title, Toggle::link(&format!("/{}", lang.other().code()))) };
    let mut response = render(problem.status, &Message { frame, title: problem.title, detail: problem.detail });
    if problem.status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
    }
    response
}

/// What every page handler starts from.
struct Visit {
    lang: Lang,
    terms: Terms,
    context: Context,
    /// Number and contents of the session.
    session: Option<(String, Session)>,
}

impl Visit {
    /// The language of the path, the terms and the session; a refusal page when there are no terms in force.
    async fn start(app: &App, lang: &str, headers: &HeaderMap) -> Result<Self, Response> {
        let Some(lang) = Lang::parse(lang) else { return Err(not_found(headers.clone()).await) };
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
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let session = cookies
            .filter_map(session::id_in)
            .find_map(|id| app.sessions.get(id, Instant::now()).map(|session| (id.to_owned(), session)));
        Ok(Self { lang, terms, context: Context { lang, zone, now }, session })
    }

    fn frame(&self, title: Text, toggle: Toggle) -> Frame {
        let as_of = self.terms.as_of;
        let signed_on = self.session.as_ref().and_then(|(_, session)| session.signed_on.as_ref());
        Frame {
            partner: self.partner(),
            officer: signed_on.map(|(officer, _)| officer.as_str().to_owned()),
            purpose: signed_on.map(|(_, purpose)| self.label(purpose)),
            csrf: self.session.as_ref().map(|(_, session)| session.csrf.clone()).unwrap_or_default(),
            as_of: Some(self.as_of(as_of)),
            stale: self.context.stale(as_of),
            ..Frame::bare(self.lang, title, toggle)
        }
    }

    fn as_of(&self, as_of: Option<Timestamp>) -> String {
        as_of.map_or_else(|| self.lang.text(Text::NeverFilled), |at| self.context.instant(at))
    }

    fn partner(&self) -> String {
        let (en, fr) = &self.terms.partner;
        if self.lang == Lang::En { en.clone() } else { fr.clone() }
    }

    fn label(&self, purpose: &str) -> String {
        Purpose::parse(purpose).map_or_else(|| purpose.to_owned(), |purpose| self.lang.of(purpose.label()))
    }

    fn path(lang: Lang, page: &str) -> String {
        if page.is_empty() { format!("/{}", lang.code()) } else { format!("/{}/{page}", lang.code()) }
    }

    /// The sign-on page, under a session that has a token for its form.
    fn sign_on_page(mut self, app: &App, status: StatusCode, errors: Vec<Text>, notice: Option<Text>) -> Response {
        let mut fresh = None;
        if self.session.is_none() {
            let (id, session) = (session::random_token(), Session { csrf: session::random_token(), signed_on: None });
            app.sessions.put(id.clone(), session.clone(), None, Instant::now());
            fresh = Some(session::cookie(&id));
            self.session = Some((id, session));
        }
        let toggle = Toggle::link(&Self::path(self.lang.other(), ""));
        let page = SignOn {
            frame: self.frame(Text::SignOnTitle, toggle),
            lead: self.lang.fill(Text::SignOnLead, self.partner()),
            purposes: self.terms.purposes.iter().map(|code| (code.clone(), self.label(code))).collect(),
            errors,
            notice,
        };
        let mut response = render(status, &page);
        if let Some(cookie) = fresh {
            set_cookie(&mut response, &cookie);
        }
        response
    }

    /// Who asks, or the page to show instead: the form is not one of ours, or nobody is signed on.
    #[allow(clippy::result_large_err, reason = "the page goes straight to axum")]
    fn asker(self, app: &App, headers: &HeaderMap, caller: &Caller, token: &str) -> Result<(Self, Asker), Response> {
        if let Err(detail) = check_origin(headers) {
            return Err(message(self.lang, &Problem::forbidden("cross-site", detail), None));
        }
        let Some((_, Session { csrf, signed_on: Some((officer, purpose)) })) = self.session.clone() else {
            return Err(self.sign_on_page(app, StatusCode::FORBIDDEN, vec![], Some(Text::SessionEnded)));
        };
        if !session::same_token(&csrf, token) {
            return Err(message(self.lang, &Problem::forbidden("cross-site", Text::CrossSite), None));
        }
        let (trace, leaf) = (caller.trace.clone(), caller.leaf.clone());
        let asker = Asker { officer, purpose, lang: self.lang, trace, leaf };
        Ok((self, asker))
    }

    fn refusal(&self, refusal: &Refusal) -> Response {
        message(self.lang, &Problem::from(refusal), Some(self.as_of(self.terms.as_of)))
    }
}

fn set_cookie(response: &mut Response, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// A form must come from a page of this origin: `Sec-Fetch-Site` says so, and where a browser does not send it, `Origin`.
fn check_origin(headers: &HeaderMap) -> Result<(), Text> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    match (text("sec-fetch-site"), text("origin"), text("host")) {
        (Some("same-origin"), _, _) | (None, None, _) => Ok(()),
        (None, Some(origin), Some(host)) if origin.strip_prefix("https://") == Some(host) => Ok(()),
        _ => Err(Text::CrossSite),
    }
}

async fn sign_on_form(State(app): State<Arc<App>>, Path(lang): Path<String>, headers: HeaderMap) -> Response {
    match Visit::start(&app, &lang, &headers).await {
        Ok(visit) if visit.session.as_ref().is_some_and(|(_, s)| s.signed_on.is_some()) => {
            Redirect::to(&Visit::path(visit.lang, "search")).into_response()
        }
        Ok(visit) => visit.sign_on_page(&app, StatusCode::OK, vec![], None),
        Err(response) => response,
    }
}

#[derive(Debug, Deserialize)]
struct SignOnFields {
    #[serde(default)]
    token: String,
    #[serde(default)]
    officer: String,
    #[serde(default)]
    purpose: String,
}

async fn sign_on(
    State(app): State<Arc<App>>,
    Path(lang): Path<String>,
    headers: HeaderMap,
    Form(fields): Form<SignOnFields>,
) -> Result<Response, Response> {
    let visit = Visit::start(&app, &lang, &headers).await?;
    check_origin(&headers).map_err(|detail| message(visit.lang, &Problem::forbidden("cross-site", detail), None))?;
    let Some((id, before)) = visit.session.clone() else {
        return Ok(visit.sign_on_page(&app, StatusCode::FORBIDDEN, vec![], Some(Text::SessionEnded)));
    };
    if !session::same_token(&before.csrf, &fields.token) {
        return Err(message(visit.lang, &Problem::forbidden("cross-site", Text::CrossSite), None));
    }
    let officer = OfficerId::parse(&fields.officer);
    let purpose = visit.terms.purposes.iter().find(|code| **code == fields.purpose).cloned();
    match (officer, purpose) {
        (Ok(officer), Some(purpose)) => {
            let fresh = session::random_token();
            let session = Session { csrf: session::random_token(), signed_on: Some((officer, purpose)) };
            app.sessions.put(fresh.clone(), session, Some(&id), Instant::now());
            let mut response = Redirect::to(&Visit::path(visit.lang, "search")).into_response();
            set_cookie(&mut response, &session::cookie(&fresh));
            Ok(response)
        }
        (officer, purpose) => {
            let mut errors: Vec<Text> = officer.err().into_iter().collect();
            if purpose.is_none() {
                errors.push(Text::PurposeQuestion);
            }
            Ok(visit.sign_on_page(&app, StatusCode::BAD_REQUEST, errors, None))
        }
    }
}

#[derive(Debug, Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
}

async fn sign_off(
    State(app): State<Arc<App>>,
    Path(lang): Path<String>,
    headers: HeaderMap,
    Form(Token { token }): Form<Token>,
) -> Result<Response, Response> {
    let mut visit = Visit::start(&app, &lang, &headers).await?;
    check_origin(&headers).map_err(|detail| message(visit.lang, &Problem::forbidden("cross-site", detail), None))?;
    if let Some((id, session)) = visit.session.take()
        && session::same_token(&session.csrf, &token)
    {
        app.sessions.end(&id);
    }
    let mut response = visit.sign_on_page(&app, StatusCode::OK, vec![], Some(Text::SignedOff));
    response.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cache\""));
    Ok(response)
}

async fn search_form(State(app): State<Arc<App>>, Path(lang): Path<String>, headers: HeaderMap) -> Response {
    match Visit::start(&app, &lang, &headers).await {
        Ok(visit) if visit.session.as_ref().is_some_and(|(_, s)| s.signed_on.is_some()) => {
            search_page(&visit, SearchFields::default(), None)
        }
        Ok(visit) => Redirect::to(&Visit::path(visit.lang, "")).into_response(),
        Err(response) => response,
    }
}

fn search_page(visit: &Visit, fields: SearchFields, error: Option<Text>) -> Response {
    let toggle = Toggle::link(&Visit::path(visit.lang.other(), "search"));
    let status = if error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let SearchFields { name, fps, birth_date, at_large, .. } = fields;
    let frame = visit.frame(Text::SearchTitle, toggle);
    render(status, &SearchForm { frame, error, name, fps, birth_date, at_large: at_large.is_some() })
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SearchFields {
    #[serde(default)]
    token: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    fps: String,
    #[serde(default)]
    birth_date: String,
    at_large: Option<String>,
    #[serde(default)]
    page: String,
}

impl SearchFields {
    fn raw(&self) -> RawSearch {
        RawSearch {
            name: Some(self.name.clone()),
            fps: Some(self.fps.clone()),
            birth_date: Some(self.birth_date.clone()),
            at_large: Some(self.at_large.is_some()),
            page: page_of(&self.page),
            ..RawSearch::default()
        }
    }
}

/// The page asked for; what is no number is refused as page nought.
fn page_of(typed: &str) -> Option<u32> {
    if typed.is_empty() { None } else { Some(typed.parse().unwrap_or(0)) }
}

async fn search(
    State(app): State<Arc<App>>,
    Path(lang): Path<String>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Form(fields): Form<SearchFields>,
) -> Result<Response, Response> {
    let visit = Visit::start(&app, &lang, &headers).await?;
    let (visit, asker) = visit.asker(&app, &headers, &caller, &fields.token)?;
    let search = match Search::parse(&fields.raw()) {
        Ok(search) => search,
        Err(hint) => return Ok(search_page(&visit, fields, Some(hint))),
    };
    let mut kept = vec![("name", fields.name), ("fps", fields.fps), ("birthDate", fields.birth_date)];
    if search.at_large {
        kept.push(("atLarge", "on".to_owned()));
    }
    kept.retain(|(_, value)| !value.is_empty());
    results(&app, &visit, &asker, Kind::Search, &search, kept).await
}

#[derive(Debug, Deserialize)]
struct PageFields {
    #[serde(default)]
    token: String,
    #[serde(default)]
    page: String,
}

async fn at_large(
    State(app): State<Arc<App>>,
    Path(lang): Path<String>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Form(fields): Form<PageFields>,
) -> Result<Response, Response> {
    let visit = Visit::start(&app, &lang, &headers).await?;
    let (visit, asker) = visit.asker(&app, &headers, &caller, &fields.token)?;
    let search = match Search::at_large(page_of(&fields.page), None) {
        Ok(search) => search,
        Err(hint) => return Ok(search_page(&visit, SearchFields::default(), Some(hint))),
    };
    results(&app, &visit, &asker, Kind::AtLarge, &search, vec![]).await
}

async fn results(
    app: &App,
    visit: &Visit,
    asker: &Asker,
    kind: Kind,
    search: &Search,
    kept: Vec<(&'static str, String)>,
) -> Result<Response, Response> {
    let found = app.store.search(asker, kind, search).await;
    app.note(kind, &found);
    let page = found.map_err(|refusal| visit.refusal(&refusal))?;
    let (title, name) = match kind {
        Kind::AtLarge => (Text::AtLargeTitle, "at-large"),
        _ => (Text::ResultsTitle, "search"),
    };
    let mut repeat = kept.clone();
    repeat.push(("page", search.page.to_string()));
    let frame = Frame {
        as_of: Some(visit.as_of(page.as_of)),
        stale: visit.context.stale(page.as_of),
        access: Some(page.access),
        ..visit.frame(title, Toggle::form(&Visit::path(visit.lang.other(), name), repeat))
    };
    let listing = view::listing(&page, search, &visit.context);
    let lead = (kind == Kind::AtLarge).then_some(Text::AtLargeLead);
    Ok(render(StatusCode::OK, &Results { frame, lead, action: Visit::path(visit.lang, name), kept, listing }))
}

#[derive(Debug, Deserialize)]
struct FileFields {
    #[serde(default)]
    token: String,
    #[serde(default)]
    file: String,
}

async fn file(
    State(app): State<Arc<App>>,
    Path(lang): Path<String>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Form(fields): Form<FileFields>,
) -> Result<Response, Response> {
    let visit = Visit::start(&app, &lang, &headers).await?;
    let (visit, asker) = visit.asker(&app, &headers, &caller, &fields.token)?;
    let absent = || message(visit.lang, &Problem::not_found(), Some(visit.as_of(visit.terms.as_of)));
    let Ok(number) = parse_file(&fields.file) else { return Err(absent()) };
    let found = app.store.file(&asker, number).await;
    app.note(Kind::File, &found);
    let Some(found) = found.map_err(|refusal| visit.refusal(&refusal))? else { return Err(absent()) };
    let profile = view::profile(number, &found, &visit.terms.groups, &visit.context);
    let image = match &profile.picture {
        None => None,
        Some(picture) => {
            let jpeg = app.store.photograph(&asker, number, &picture.sha256).await;
            app.note(Kind::Photograph, &jpeg);
            // A profile without its photograph is better than none.
            jpeg.ok().flatten().map(|jpeg| format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)))
        }
    };
    let repeat = vec![("file", number.to_string())];
    let frame = Frame {
        as_of: Some(visit.as_of(found.as_of)),
        stale: visit.context.stale(found.as_of),
        access: Some(found.access),
        ..visit.frame(Text::ProfileTitle, Toggle::form(&Visit::path(visit.lang.other(), "file"), repeat))
    };
    Ok(render(StatusCode::OK, &ProfilePage { frame, profile, image }))
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
            check_origin(&headers).is_ok()
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
