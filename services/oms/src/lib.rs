//! The hub and the synthetic OMS that stands in for CSC's extract: migrations, a generator, a simulated day, the nightly
//! reload. Touches the hub database only; the generator itself is pure ([`file`], [`photo`]).

pub mod connect;
pub mod error;
pub mod migrate;
