//! The pages for officers, at `/en` and `/fr`: plain forms and answers, no script.
//!
//! Every read is a POST with the session's token. The language toggle of an answer repeats the request in the other
//! language, which is read, and logged, again.

use std::sync::Arc;

use axum::{
    Form, Router,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::{
    app::App,
    problem::Problem,
    request::{OfficerId, RawSearch, Search, parse_file},
    session::{self, Session},
    store::{Asker, Kind},
    templates::{Frame, ProfilePage, Results, SearchForm, Toggle},
    texts::{Lang, Text},
    view,
    visit::{Visit, keep_session, message, path, preferred, render, set_session},
};

/// The routes of the pages.
pub fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route("/{lang}", get(sign_on_form))
        .route("/{lang}/sign-on", post(sign_on))
        .route("/{lang}/sign-off", post(sign_off))
        .route("/{lang}/search", get(search_form).post(search))
        .route("/{lang}/at-large", post(at_large))
        .route("/{lang}/file", post(file))
        .route_layer(middleware::from_fn_with_state(Arc::clone(app), keep_session))
        .route("/", get(root))
        .route("/assets/infopol.css", get(style))
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

async fn sign_on_form(visit: Visit) -> Response {
    if visit.signed_on().is_some() {
        return Redirect::to(&path(visit.lang, "search")).into_response();
    }
    visit.sign_on_page(StatusCode::OK, vec![], None)
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

async fn sign_on(visit: Visit, Form(fields): Form<SignOnFields>) -> Result<Response, Response> {
    visit.check_origin()?;
    let Some(before) = &visit.session else {
        return Ok(visit.sign_on_page(StatusCode::FORBIDDEN, vec![], Some(Text::SessionEnded)));
    };
    if !session::same_token(&before.csrf, &fields.token) {
        return Err(visit.cross_site());
    }
    let officer = OfficerId::parse(&fields.officer);
    let purpose = visit.terms.purposes.iter().find(|code| **code == fields.purpose).cloned();
    match (officer, purpose) {
        (Ok(officer), Some(purpose)) => {
            // Another session with another token: what was known before sign-on is worthless.
            let session = Session::begin(Some((officer, purpose)), visit.context.now);
            let mut response = Redirect::to(&path(visit.lang, "search")).into_response();
            set_session(&visit.app, &mut response, &session, visit.context.now);
            Ok(response)
        }
        (officer, purpose) => {
            let mut errors: Vec<Text> = officer.err().into_iter().collect();
            if purpose.is_none() {
                errors.push(Text::PurposeQuestion);
            }
            Ok(visit.sign_on_page(StatusCode::BAD_REQUEST, errors, None))
        }
    }
}

async fn sign_off(mut visit: Visit) -> Result<Response, Response> {
    visit.check_origin()?;
    // The sign-on page comes with a session of its own, which takes the old one's place in the browser.
    visit.session = None;
    let mut response = visit.sign_on_page(StatusCode::OK, vec![], Some(Text::SignedOff));
    response.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cache\""));
    Ok(response)
}

async fn search_form(visit: Visit) -> Response {
    if visit.signed_on().is_some() {
        return search_page(&visit, SearchFields::default(), None);
    }
    Redirect::to(&path(visit.lang, "")).into_response()
}

fn search_page(visit: &Visit, fields: SearchFields, error: Option<Text>) -> Response {
    let toggle = Toggle::link(&path(visit.lang.other(), "search"));
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
    /// The search is to be changed, not run.
    edit: Option<String>,
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

async fn search(visit: Visit, Form(fields): Form<SearchFields>) -> Result<Response, Response> {
    let (visit, asker) = visit.asker(&fields.token)?;
    if fields.edit.is_some() {
        return Ok(search_page(&visit, fields, None));
    }
    let search = match Search::parse(&fields.raw()) {
        Ok(search) => search,
        Err(hint) => return Ok(search_page(&visit, fields, Some(hint))),
    };
    let mut kept = vec![("name", fields.name), ("fps", fields.fps), ("birthDate", fields.birth_date)];
    if search.at_large {
        kept.push(("atLarge", "on".to_owned()));
    }
    kept.retain(|(_, value)| !value.is_empty());
    results(&visit, &asker, Kind::Search, &search, kept).await
}

#[derive(Debug, Deserialize)]
struct PageFields {
    #[serde(default)]
    token: String,
    #[serde(default)]
    page: String,
}

async fn at_large(visit: Visit, Form(fields): Form<PageFields>) -> Result<Response, Response> {
    let (visit, asker) = visit.asker(&fields.token)?;
    let search = match Search::at_large(page_of(&fields.page), None) {
        Ok(search) => search,
        Err(hint) => return Ok(search_page(&visit, SearchFields::default(), Some(hint))),
    };
    results(&visit, &asker, Kind::AtLarge, &search, vec![]).await
}

/// A field of a search in words.
fn in_words(lang: Lang, name: &str, value: &str) -> Option<(String, String)> {
    let label = match name {
        "name" => Text::NameOrAlias,
        "fps" => Text::FpsNumber,
        "birthDate" => Text::BirthDate,
        "atLarge" => return Some((lang.text(Text::OnlyAtLarge), lang.text(Text::Yes))),
        _ => return None,
    };
    Some((lang.text(label), value.to_owned()))
}

async fn results(
    visit: &Visit,
    asker: &Asker,
    kind: Kind,
    search: &Search,
    kept: Vec<(&'static str, String)>,
) -> Result<Response, Response> {
    let found = visit.app.store.search(asker, kind, search).await;
    visit.app.note(kind, &found);
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
        ..visit.frame(title, Toggle::form(&path(visit.lang.other(), name), repeat))
    };
    let said = kept.iter().filter_map(|(name, value)| in_words(visit.lang, name, value)).collect();
    let listing = view::listing(&page, search, &visit.context);
    let lead = (kind == Kind::AtLarge).then_some(Text::AtLargeLead);
    Ok(render(StatusCode::OK, &Results { frame, lead, action: path(visit.lang, name), kept, asked: said, listing }))
}

#[derive(Debug, Deserialize)]
struct FileFields {
    #[serde(default)]
    token: String,
    #[serde(default)]
    file: String,
}

async fn file(visit: Visit, Form(fields): Form<FileFields>) -> Result<Response, Response> {
    let (visit, asker) = visit.asker(&fields.token)?;
    let absent = || message(visit.lang, &Problem::not_found(), Some(visit.as_of(visit.terms.as_of)));
    let Ok(number) = parse_file(&fields.file) else { return Err(absent()) };
    let found = visit.app.store.file(&asker, number).await;
    visit.app.note(Kind::File, &found);
    let Some(found) = found.map_err(|refusal| visit.refusal(&refusal))? else { return Err(absent()) };
    let profile = view::profile(number, &found, &visit.terms.groups, &visit.context);
    let image = match &profile.picture {
        None => None,
        Some(picture) => {
            let jpeg = visit.app.store.photograph(&asker, number, &picture.sha256).await;
            visit.app.note(Kind::Photograph, &jpeg);
            // A profile without its photograph is better than none.
            jpeg.ok().flatten().map(|jpeg| format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)))
        }
    };
    let repeat = vec![("file", number.to_string())];
    let frame = Frame {
        as_of: Some(visit.as_of(found.as_of)),
        stale: visit.context.stale(found.as_of),
        access: Some(found.access),
        ..visit.frame(Text::ProfileTitle, Toggle::form(&path(visit.lang.other(), "file"), repeat))
    };
    Ok(render(StatusCode::OK, &ProfilePage { frame, profile, image }))
}
