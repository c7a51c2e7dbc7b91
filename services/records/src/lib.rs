//! What a record is, who may have it, and how it is named, encoded, searched and hashed.
//!
//! Pure: no I/O, no clock, no randomness. Every other crate depends on this one, and it on none of them.
//!
//! * [`names`]: a partner's identity and what is derived from it (schemas, roles).
//! * [`codes`]: the closed code lists, each with its English and French label.
//! * [`catalogue`]: field group -> table -> column; the hub's view is generated from it.
//! * [`encoding`]: a record's hash, and the search row of a file.
//! * [`search`]: how a name is written down so that it is found again.
//! * [`ledger`]: what the disclosure ledger's hashes cover.
//! * [`evidence`]: the ledger as a file, and whether it is whole.
//! * [`statement`]: what is signed: its kinds, its canonical text, its name in Kubernetes.
//! * [`trust`]: what a process says of the certificates that it uses.
//! * [`population`]: the scope language: which offender files a share covers.
//! * [`set_hash`]: one hash of a whole replica, and where two differ.

pub mod catalogue;
pub mod codes;
pub mod encoding;
pub mod evidence;
pub mod ledger;
pub mod names;
pub mod population;
pub mod search;
pub mod set_hash;
pub mod statement;
pub mod trust;
