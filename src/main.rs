//! The program `tidegate`; the library contains all of its code.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Takes fewer instructions than the C library's allocator, and gives memory back after a burst.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    tidegate::cli::main()
}
