//! Benchmarks: each runs what it is compared with in the same run, prints a ratio, and writes `target/bench/NAME.json`.
//!
//! Touches: scratch databases on the server that `TEST_DATABASE_URL` names, and `target/bench`.

pub mod generate;

use std::{fs, io, process::Command};

use serde_json::Value;

/// Runs a program to its end; its standard output, or what it said on standard error.
pub fn run(program: &str, args: &[&str]) -> io::Result<String> {
    let out = Command::new(program).args(args).output()?;
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    } else {
        Err(io::Error::other(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr))))
    }
}

/// Writes the measures of a benchmark, one object each (name, value, unit, and its peer's value).
pub fn record(name: &str, measures: &Value) -> io::Result<()> {
    fs::create_dir_all("target/bench")?;
    fs::write(format!("target/bench/{name}.json"), format!("{measures:#}\n"))
}
