//! `liaison-sync`: see the library.

fn main() -> std::process::ExitCode {
    liaison_sync::cli::run()
}
