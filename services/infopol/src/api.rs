//! The JSON API. Reads are POSTs: no name or number is ever in a URL.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{FromRequest, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use liaison_records::codes::{Code, FieldGroup, Label, Purpose};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    app::{App, Caller},
    openapi,
    problem::{Problem, respond},
    request::{OfficerId, RawSearch, Search, parse_sha256},
    store::{Asker, Kind, Page, Refusal},
    texts::Text,
    view,
    visit::preferred,
};

/// The routes under `/api`.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/openapi.json", get(|| async { respond(StatusCode::OK, "application/json", &openapi::document()) }))
        .route("/api/terms", get(terms))
        .route("/api/search", post(search))
        .route("/api/at-large", post(at_large))
        .route("/api/files/read", post(read))
        .route("/api/files/photograph", post(photograph))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPage {
    page: Option<u32>,
    page_size: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawFile {
    file: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPhotograph {
    file: i64,
    sha256: String,
}

/// A request of the API: who asks and why, from two required headers, and what for, from a JSON body.
struct Asked<T>(Asker, T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Asked<T> {
    type Rejection = Response;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let refused = Problem::forbidden("wrong-certificate", Text::WrongCertificate);
        // The layer that names the caller stands before every route.
        let caller = parts.extensions.get::<Caller>().cloned().ok_or_else(|| refused.into_response())?;
        let bytes = Bytes::from_request(Request::from_parts(parts.clone(), body), app).await;
        let bytes = bytes.map_err(IntoResponse::into_response)?;
        let asker = asker(&parts.headers, caller).map_err(IntoResponse::into_response)?;
        let wanted = json_body(&parts.headers, &bytes).map_err(IntoResponse::into_response)?;
        Ok(Self(asker, wanted))
    }
}

fn asker(headers: &HeaderMap, Caller { trace, leaf }: Caller) -> Result<Asker, Problem> {
    let header = |name| {
        let mut values = headers.get_all(name).iter();
        let only = values.next().filter(|_| values.next().is_none());
        only.and_then(|value| value.to_str().ok()).unwrap_or_default()
    };
    let officer = OfficerId::parse(header("officer-id")).map_err(Problem::invalid)?;
    let purpose = header("purpose").trim().to_owned();
    if !(1..=64).contains(&purpose.len()) || !purpose.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(Problem::invalid(Text::PurposeMissing));
    }
    Ok(Asker { officer, purpose, lang: preferred(headers), trace, leaf })
}

fn json_body<T: DeserializeOwned>(headers: &HeaderMap, bytes: &Bytes) -> Result<T, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_json = content_type.split(';').next().is_some_and(|t| t.trim().eq_ignore_ascii_case("application/json"));
    if !is_json {
        return Err(Problem { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, ..Problem::invalid(Text::BodyInvalid) });
    }
    serde_json::from_slice(bytes).map_err(|_| Problem::invalid(Text::BodyInvalid))
}

/// RFC 3339, to the second.
fn instant(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| json!(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()))
}

fn answer(as_of: Option<Timestamp>, access: Option<i64>, more: Value) -> Response {
    let mut body = json!({
        "dataAsOf": instant(as_of),
        "stale": view::is_stale(as_of, Timestamp::now()).is_some(),
    });
    if let (Some(object), Value::Object(more)) = (body.as_object_mut(), more) {
        if let Some(access) = access {
            object.insert("accessRecord".into(), json!(access));
        }
        object.extend(more);
    }
    respond(StatusCode::OK, "application/json", &body)
}

fn labelled<C: Code>(codes: &[String]) -> Vec<Value> {
    let label = |code: &str| C::parse(code).map_or(Label { en: "", fr: "" }, Code::label);
    codes.iter().map(|code| json!({"code": code, "en": label(code).en, "fr": label(code).fr})).collect()
}

async fn terms(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let terms = app.store.terms().await;
    app.metrics.store(terms.as_ref().ok().map(Option::as_ref));
    let terms = terms.map_err(|refusal| Problem::from(&refusal))?.ok_or(Problem::from(&Refusal::Closed))?;
    Ok(answer(
        terms.as_of,
        None,
        json!({
            "partner": {"en": terms.partner.0, "fr": terms.partner.1},
            "timeZone": terms.time_zone,
            "purposes": labelled::<Purpose>(&terms.purposes),
            "fieldGroups": labelled::<FieldGroup>(&terms.groups),
            "authorizedUntil": instant(terms.authorized_until),
            "open": terms.is_open(Timestamp::now()),
            "generation": terms.generation,
        }),
    ))
}

async fn search(State(app): State<Arc<App>>, Asked(asker, raw): Asked<RawSearch>) -> Result<Response, Problem> {
    let search = Search::parse(&raw).map_err(Problem::invalid)?;
    run(&app, &asker, Kind::Search, &search).await
}

async fn at_large(
    State(app): State<Arc<App>>,
    Asked(asker, RawPage { page, page_size }): Asked<RawPage>,
) -> Result<Response, Problem> {
    let search = Search::at_large(page, page_size).map_err(Problem::invalid)?;
    run(&app, &asker, Kind::AtLarge, &search).await
}

async fn run(app: &App, asker: &Asker, kind: Kind, search: &Search) -> Result<Response, Problem> {
    let found = app.store.search(asker, kind, search).await;
    app.note(kind, &found);
    let page = found.map_err(|refusal| Problem::from(&refusal))?;
    Ok(answer(page.as_of, Some(page.access), results(&page, search)))
}

fn results(page: &Page, search: &Search) -> Value {
    let results: Vec<Value> = page
        .subjects
        .iter()
        .map(|s| {
            json!({
                "file": s.file,
                "fps": s.fps,
                "surname": s.surname,
                "given": s.given,
                "birthDate": s.birth_date.map(|date| date.to_string()),
                "custody": s.custody,
                "status": s.status,
                "atLarge": s.at_large,
                "jurisdiction": s.jurisdiction,
                "municipality": s.municipality,
                "municipalityName": s.place,
                "photograph": s.photograph,
                "matchedBy": view::matched(s, search).as_str(),
            })
        })
        .collect();
    json!({"total": page.total, "page": search.page, "pageSize": search.page_size, "results": results})
}

/// Whether the file left, never was, or is another partner's: the same answer.
async fn absent(app: &App) -> Response {
    let as_of = app.store.terms().await.ok().flatten().and_then(|terms| terms.as_of);
    let problem = Problem::not_found();
    let mut body = problem.body();
    if let Some(object) = body.as_object_mut() {
        object.insert("dataAsOf".into(), instant(as_of));
    }
    respond(problem.status, "application/problem+json", &body)
}

async fn read(
    State(app): State<Arc<App>>,
    Asked(asker, RawFile { file }): Asked<RawFile>,
) -> Result<Response, Problem> {
    let found = app.store.file(&asker, file).await;
    app.note(Kind::File, &found);
    let Some(found) = found.map_err(|refusal| Problem::from(&refusal))? else { return Ok(absent(&app).await) };
    let of = |reference: bool| -> Vec<Value> {
        let records = found.records.iter().filter(|record| record.offender.is_none() == reference);
        records.map(|r| json!({"group": r.group, "table": r.table, "id": r.id, "body": r.body})).collect()
    };
    let more = json!({"file": file, "records": of(false), "references": of(true)});
    Ok(answer(found.as_of, Some(found.access), more))
}

async fn photograph(
    State(app): State<Arc<App>>,
    Asked(asker, RawPhotograph { file, sha256 }): Asked<RawPhotograph>,
) -> Result<Response, Problem> {
    let sha256 = parse_sha256(&sha256).map_err(Problem::invalid)?;
    let found = app.store.photograph(&asker, file, &sha256).await;
    app.note(Kind::Photograph, &found);
    let Some(jpeg) = found.map_err(|refusal| Problem::from(&refusal))? else { return Ok(absent(&app).await) };
    let as_of = app.store.terms().await.ok().flatten().and_then(|terms| terms.as_of);
    let mut response = jpeg.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("image/jpeg"));
    if let Some(Ok(value)) = instant(as_of).as_str().map(HeaderValue::from_str) {
        response.headers_mut().insert("data-as-of", value);
    }
    Ok(response)
}
