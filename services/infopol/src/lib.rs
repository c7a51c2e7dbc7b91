//! InfoPol: what one partner's officers search and read, over that partner's replica.
//!
//! It has that partner's credentials and nothing else. Every read is logged by the database before it is answered
//! (invariant I4); the functions it may call are in `services/sync/sql/journal.sql`. Pure: [`texts`], [`request`],
//! [`view`], [`session`], [`client_cert`], [`openapi`]; the edges: [`store`], [`tls`], [`api`], [`visit`], [`pages`], [`server`].

pub mod api;
pub mod app;
pub mod client_cert;
pub mod config;
pub mod metrics;
pub mod openapi;
pub mod pages;
pub mod problem;
pub mod request;
pub mod server;
pub mod session;
pub mod store;
pub mod templates;
pub mod texts;
pub mod tls;
pub mod view;
pub mod visit;
