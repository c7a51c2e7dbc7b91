//! What can go wrong, said so that whoever runs the program knows what to do.

/// An error of liaison-oms.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is missing or wrong.
    #[error("{0}")]
    Config(String),
    /// The hub refused, or was not reached.
    #[error("hub database: {0}")]
    Database(#[from] sqlx::Error),
    /// A migration failed.
    #[error("hub migration: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// OMS holds something else already.
    #[error("OMS is not empty ({0} offender files); use --replace to throw them away and generate anew")]
    NotEmpty(i64),
    /// An embedded data file is not as expected.
    #[error("reference data: {0}")]
    Data(String),
    /// An action does not fit the file.
    #[error("offender {offender}: {message}")]
    Action {
        /// The file.
        offender: i64,
        /// Why not, and what would fit.
        message: String,
    },
    /// A photograph could not be encoded.
    #[error("photograph: {0}")]
    Photograph(String),
    /// A worker thread ended early.
    #[error("a generator thread ended early: {0}")]
    Worker(String),
    /// A date could not be computed.
    #[error("date: {0}")]
    Date(#[from] jiff::Error),
}
