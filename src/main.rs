//! The `waxseal` program: parses the command line, runs a command, turns its result into an exit status.
//! Everything else is in the library.

use std::process::ExitCode;

/// The C library's allocator keeps freed memory in an arena per thread, so under load the program would use twice what
/// `max_memory` allows. This one returns it; .cargo/config.toml says how soon.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    waxseal::cli::main()
}
