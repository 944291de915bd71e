//! The `tidegate` program.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let _ = args.next();
    let config = match args.next().as_deref() {
        Some("--config") => args.next().map(PathBuf::from),
        _ => None,
    };
    tidegate::app::run_command(config)
}
