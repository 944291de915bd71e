//! The program `tidegate`; the library contains all of its code.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate::cli::main()
}
