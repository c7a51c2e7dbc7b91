//! Benchmarks: each runs what it is compared with in the same run, prints a ratio, writes `target/bench/NAME.json`, and puts
//! its figures into `docs/benchmarks.md`.
//!
//! Touches: private PostgreSQL servers in a temporary directory, `target/bench`, `docs/benchmarks.md` and `docs/images`;
//! `generate` alone uses scratch databases on the server that `TEST_DATABASE_URL` names, and `connections` alone namespaces of its own on
//! the API server of `KUBECONFIG`.

pub mod cluster;
pub mod connections;
pub mod error;
pub mod fanout;
pub mod figures;
pub mod generate;
pub mod liaison;
pub mod live;
pub mod load;
pub mod measures;
pub mod native;
pub mod oracle;
pub mod plot;
pub mod process;
pub mod render;
pub mod scopes;
pub mod usage;
pub mod worker;

use std::{io, process::Command};

/// Runs a program to its end; its standard output, or what it said on standard error.
pub fn run(program: &str, args: &[&str]) -> io::Result<String> {
    let out = Command::new(program).args(args).output()?;
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    } else {
        Err(io::Error::other(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr))))
    }
}
