//! The `chinwag` binary: flags → Config → tracing → App → exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    chinwag::cli::run(std::env::args_os())
}
