//! The `waxseal` program: parses the command line, runs a command, turns its result into an exit status.
//! Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    waxseal::cli::main()
}
