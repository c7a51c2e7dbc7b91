//! Parses arguments and calls the library.
fn main() -> std::process::ExitCode {
    liaison_oms::cli::main()
}
