//! The hub and the synthetic OMS that stands in for CSC's extract: migrations, a generator, a simulated day, the nightly
//! reload. Touches the hub database only.
//!
//! Pure: [`data`], [`model`], [`file`], [`photo`], [`reference`], [`rows`]. The edges: [`connect`], [`migrate`],
//! [`capture`], [`bulk`], [`generate`], [`reload`], [`actions`], [`day`], [`cli`].

pub mod actions;
pub mod bulk;
pub mod capture;
pub mod cli;
pub mod connect;
pub mod data;
pub mod day;
pub mod error;
pub mod file;
pub mod generate;
pub mod migrate;
pub mod model;
pub mod photo;
pub mod reference;
pub mod reload;
pub mod rows;
