//! The `interrex` program; `interrex --help` says what it can do.

fn main() -> std::process::ExitCode {
    interrex::cli::main()
}
