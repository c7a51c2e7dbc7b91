//! Refusals of the API: RFC 9457 problem details with English and French text, and what to do.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{
    store::Refusal,
    texts::{Lang, Text},
};

/// A refusal with a stable code and what must change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable: `type` is `urn:liaison:problem:<code>`.
    pub code: &'static str,
    /// What it is.
    pub title: Text,
    /// What to do.
    pub detail: Text,
}

impl Problem {
    /// A request that must change.
    pub const fn invalid(detail: Text) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "invalid-request", title: Text::Error, detail }
    }

    /// A file or page that is not here.
    pub const fn not_found() -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            code: "not-available",
            title: Text::NotFoundTitle,
            detail: Text::NotFound,
        }
    }

    /// A refusal that no change of the request cures.
    pub const fn forbidden(code: &'static str, detail: Text) -> Self {
        Self { status: StatusCode::FORBIDDEN, code, title: Text::ForbiddenTitle, detail }
    }

    /// As JSON, in both languages.
    pub fn body(&self) -> Value {
        json!({
            "type": format!("urn:liaison:problem:{}", self.code),
            "status": self.status.as_u16(),
            "title": Lang::En.text(self.title),
            "titleFr": Lang::Fr.text(self.title),
            "detail": Lang::En.text(self.detail),
            "detailFr": Lang::Fr.text(self.detail),
        })
    }
}

impl From<&Refusal> for Problem {
    fn from(refusal: &Refusal) -> Self {
        let unavailable = |code, title, detail| Self { status: StatusCode::SERVICE_UNAVAILABLE, code, title, detail };
        match refusal {
            Refusal::Closed => {
                Self { status: StatusCode::FORBIDDEN, code: "closed", title: Text::ClosedTitle, detail: Text::Closed }
            }
            Refusal::Purpose => Self::forbidden("purpose-not-permitted", Text::PurposeNotPermitted),
            Refusal::Fenced => unavailable("fenced", Text::FencedTitle, Text::Fenced),
            Refusal::NotLogged | Refusal::Unavailable(_) => {
                unavailable("unavailable", Text::UnavailableTitle, Text::Unavailable)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        respond(self.status, "application/problem+json", &self.body())
    }
}

/// A JSON answer; one that says "not now" also says when.
pub fn respond(status: StatusCode, content_type: &'static str, body: &Value) -> Response {
    let mut response = (status, body.to_string()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
    }
    response
}
