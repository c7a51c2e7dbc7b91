//! How many offender files a second `liaison-oms generate` makes, beside PostgreSQL's own tools loading the very same rows.
//!
//! The competitor is `pg_dump --data-only` piped into `psql`: the same rows by COPY into the same tables, with the same
//! capture triggers and keys, but with nothing to invent or draw. It is what generating could cost at best.

use std::{env, time::Instant};

use serde_json::json;

use crate::{
    error::{Error, Result},
    figures, render, run,
};

/// Runs both and prints files a second and their ratio. `incarcerated`, `community`, `archived`: files of each kind.
pub fn bench(incarcerated: u32, community: u32, archived: u32) -> Result<()> {
    let server = env::var("TEST_DATABASE_URL").map_err(|_| {
        Error::said("TEST_DATABASE_URL is not set: run make bench-generate, or eval \"$(tests/cluster/services env)\"")
    })?;
    let oms = env::current_exe()?.with_file_name("liaison-oms");
    let oms = oms.to_string_lossy();
    let files = f64::from(incarcerated) + f64::from(community) + f64::from(archived);
    let (base, _) = server.rsplit_once('/').unwrap_or((&server, ""));
    let id = std::process::id();
    let names = [format!("bench_generate_{id}"), format!("bench_reload_{id}")];
    let [ours, theirs] = names.each_ref().map(|name| format!("{base}/{name}"));
    let clear = || {
        names
            .iter()
            .try_for_each(|name| run("psql", &[&server, "-Xqc", &format!("DROP DATABASE IF EXISTS {name}")]).map(drop))
    };
    let measured = measure(&server, &names, &oms, &ours, &theirs, [incarcerated, community, archived]);
    clear()?;
    let (generate, reload) = measured?;
    let ratio = reload / generate;
    println!("{files} files with children and photographs");
    println!("  liaison-oms generate   {generate:>8.1} s  {:>9.0} files/s", files / generate);
    println!("  pg_dump | psql         {reload:>8.1} s  {:>9.0} files/s", files / reload);
    println!("  ratio (ours / theirs)  {ratio:>8.2}");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    figures::store(
        "generate",
        &[json!({"name": "generate", "unit": "files/s", "files": files, "cores": cores,
            "liaison": files / generate, "native": files / reload, "ratio": ratio})],
    )?;
    render::page()
}

/// Seconds that each takes.
fn measure(
    server: &str,
    names: &[String; 2],
    oms: &str,
    ours: &str,
    theirs: &str,
    [incarcerated, community, archived]: [u32; 3],
) -> Result<(f64, f64)> {
    for name in names {
        run("psql", &[server, "-Xqc", &format!("CREATE DATABASE {name}")])?;
    }
    for url in [ours, theirs] {
        run(oms, &["--hub-url", url, "migrate"])?;
    }
    eprintln!("generating");
    let started = Instant::now();
    let counts = [incarcerated, community, archived].map(|n| n.to_string());
    let args = [
        "--hub-url",
        ours,
        "generate",
        "--active-incarcerated",
        &counts[0],
        "--community",
        &counts[1],
        "--archived",
        &counts[2],
    ];
    run(oms, &args)?;
    let generate = started.elapsed().as_secs_f64();
    eprintln!("  {generate:.1} s; dumping and loading the same");
    // pg_dump's order does not follow the foreign keys of one transaction: they are put aside, as generate does.
    let dump = "set -o pipefail; pg_dump --data-only --schema=oms \"$1\" | PGOPTIONS='-c session_replication_role=replica' psql -Xq -v ON_ERROR_STOP=1 --single-transaction \"$2\" >/dev/null";
    let started = Instant::now();
    run("bash", &["-c", dump, "bench", ours, theirs])?;
    Ok((generate, started.elapsed().as_secs_f64()))
}
