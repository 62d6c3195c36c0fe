//! The `andon` program: parses the command line and runs the command.

use std::process::ExitCode;

fn main() -> ExitCode {
    andon::cli::main()
}
