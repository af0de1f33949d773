//! The `desist` command.

fn main() -> std::process::ExitCode {
    desist::cli::main()
}
