//! Files that a test makes and runs.
//!
//! The kernel runs no file that a process holds open for writing (`ETXTBSY`). A child that another
//! thread forks while the test writes the file inherits the open file, until it runs its own program.
//! So another process writes these files: the children of the test inherit none of its files.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Copies a program.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    install(from, to, "");
}

/// Makes a script of the shell.
pub(crate) fn script(at: &Path, text: &str) {
    let text = format!("#!/bin/sh\n{text}\n");
    install(Path::new("/dev/stdin"), at, &text);
}

fn install(from: &Path, to: &Path, text: &str) {
    let mut command = Command::new("install");
    command.arg("-m").arg("755").arg(from).arg(to);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("install");
    let mut stdin = child.stdin.take().expect("a stdin");
    stdin.write_all(text.as_bytes()).expect("a text");
    drop(stdin);
    assert!(child.wait().expect("install").success(), "{command:?}");
}
