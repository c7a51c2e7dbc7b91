//! How many offender files a second `liaison-oms generate` makes, beside PostgreSQL's own tools loading the very same rows.
//!
//! The competitor is `pg_dump --data-only` piped into `psql`: the same rows by COPY into the same tables, with the same
//! capture triggers and keys, but with nothing to invent or draw. It is what generating could cost at best.

use std::{env, io, time::Instant};

use serde_json::json;

use crate::{record, run};

/// Runs both and prints files a second and their ratio. `incarcerated`, `community`, `archived`: files of each kind.
pub fn bench(incarcerated: u32, community: u32, archived: u32) -> io::Result<()> {
    let server = env::var("TEST_DATABASE_URL")
        .map_err(|_| io::Error::other("TEST_DATABASE_URL is not set: eval \"$(tests/cluster/services env)\""))?;
    let oms = env::current_exe()?.with_file_name("liaison-oms");
    let oms = oms.to_string_lossy();
    let files = f64::from(incarcerated) + f64::from(community) + f64::from(archived);
    let (base, _) = server.rsplit_once('/').unwrap_or((&server, ""));
    let (ours, theirs) = (format!("{base}/bench_generate"), format!("{base}/bench_reload"));
    for name in ["bench_generate", "bench_reload"] {
        run("psql", &[&server, "-Xqc", &format!("DROP DATABASE IF EXISTS {name}")])?;
        run("psql", &[&server, "-Xqc", &format!("CREATE DATABASE {name}")])?;
    }
    for url in [&ours, &theirs] {
        run(&oms, &["--hub-url", url, "migrate"])?;
    }
    let started = Instant::now();
    run(
        &oms,
        &[
            "--hub-url",
            &ours,
            "generate",
            "--active-incarcerated",
            &incarcerated.to_string(),
            "--community",
            &community.to_string(),
            "--archived",
            &archived.to_string(),
        ],
    )?;
    let generate = started.elapsed().as_secs_f64();
    let dump = "set -o pipefail; pg_dump --data-only --schema=oms \"$1\" | PGOPTIONS='-c session_replication_role=origin' psql -Xq -v ON_ERROR_STOP=1 --single-transaction \"$2\" >/dev/null";
    let started = Instant::now();
    run("bash", &["-c", dump, "bench", &ours, &theirs])?;
    let reload = started.elapsed().as_secs_f64();
    for name in ["bench_generate", "bench_reload"] {
        run("psql", &[&server, "-Xqc", &format!("DROP DATABASE {name}")])?;
    }
    let ratio = reload / generate;
    println!("{files} files with children and photographs");
    println!("  liaison-oms generate   {:>8.1} s  {:>9.0} files/s", generate, files / generate);
    println!("  pg_dump | psql         {:>8.1} s  {:>9.0} files/s", reload, files / reload);
    println!("  ratio (ours / theirs)  {ratio:>8.2}");
    record(
        "generate",
        &json!([{"name": "generate", "unit": "files/s", "files": files, "liaison": files / generate, "pg_dump|psql": files / reload, "ratio": ratio}]),
    )
}
