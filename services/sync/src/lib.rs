//! liaison-sync: the only process that opens both the hub and a replica.
//!
//! `serve` keeps every partner's replica equal to its scope; the Jobs `seed` and `dispose` make and remove one, `verify`
//! shows that it is what it ought to be. The algorithm, why it is exact, and what each crash point leaves behind: `docs/replication.md`.
//!
//! Pure: [`cursor`], [`terms`], [`record`], [`route`], [`cover`], [`delta`], [`subject`], [`ledger`], [`quote`]. The hub: [`hub`],
//! [`wal`], [`hub_ledger`], [`mark`]. The replica: [`replica`], `apply`. Both: [`partner`], [`gather`], [`compare`], [`rebuild`],
//! [`worker`], [`verify`]. Kubernetes: [`desired`], [`serve`], [`signing`], [`witness`], [`backlog`], [`progress`]. The Jobs: [`seed`], [`dispose`].

pub mod account;
mod apply;
pub mod backlog;
pub mod checkpoint;
pub mod cli;
pub mod commands;
pub mod compare;
pub mod connect;
pub mod cover;
pub mod cursor;
pub mod delta;
pub mod desired;
pub mod dispose;
pub mod error;
pub mod export;
pub mod fault;
pub mod gather;
pub mod handover;
mod housekeeping;
pub mod hub;
pub mod hub_ledger;
pub mod ledger;
pub mod mark;
pub mod partner;
pub mod progress;
pub mod quote;
pub mod rebuild;
pub mod record;
pub mod replica;
pub mod retention;
pub mod route;
pub mod seed;
pub mod serve;
pub mod signature;
pub mod signing;
pub mod statement;
pub mod status;
pub mod subject;
mod tasks;
pub mod telemetry;
pub mod terms;
pub mod tls;
mod together;
pub mod verify;
pub mod wal;
pub mod witness;
pub mod worker;
