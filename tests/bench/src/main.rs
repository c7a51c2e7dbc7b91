//! Parses arguments and calls the library.

use clap::Parser;

/// Liaison's benchmarks.
#[derive(Parser)]
enum Bench {
    /// Files a second of the synthetic OMS.
    Generate {
        /// Incarcerated files.
        #[arg(long, default_value_t = 13_000)]
        incarcerated: u32,
        /// Files in the community.
        #[arg(long, default_value_t = 9_000)]
        community: u32,
        /// Archived files.
        #[arg(long, default_value_t = 125_000)]
        archived: u32,
    },
}

fn main() -> std::io::Result<()> {
    match Bench::parse() {
        Bench::Generate { incarcerated, community, archived } => {
            liaison_bench::generate::bench(incarcerated, community, archived)
        }
    }
}
