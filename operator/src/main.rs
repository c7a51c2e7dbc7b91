//! Parses arguments and calls the library.

use clap::Parser;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    liaison_operator::run::main(liaison_operator::settings::Cli::parse()).await
}
