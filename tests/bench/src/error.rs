//! Why a benchmark did not end.

use std::io;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or a process.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A server refused something.
    #[error("PostgreSQL: {0}")]
    Postgres(String),
    /// A result file or an answer of a child process cannot be read.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Everything else, in words.
    #[error("{0}")]
    Said(String),
}

impl Error {
    /// In words.
    pub fn said(message: impl Into<String>) -> Self {
        Self::Said(message.into())
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        // The driver's own text is "db error" only.
        let said = error.as_db_error().map(|e| e.message().to_owned());
        Self::Postgres(said.unwrap_or_else(|| error.to_string()))
    }
}

/// The result of a step.
pub type Result<T> = std::result::Result<T, Error>;
