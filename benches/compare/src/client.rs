//! A client that prints how far it is, and reads a line before it goes on.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{ChildStdin, ChildStdout};

use anyhow::{Context as _, Result, ensure};

use crate::program::Program;

/// The running client; it ends when this is dropped.
pub struct Client {
    output: BufReader<ChildStdout>,
    input: ChildStdin,
    _program: Program,
}

impl Client {
    /// Takes over a program whose input and output are pipes.
    pub fn new(mut program: Program) -> Result<Self> {
        let (output, input) = (program.child.stdout.take(), program.child.stdin.take());
        Ok(Self {
            output: BufReader::new(output.context("no output")?),
            input: input.context("no input")?,
            _program: program,
        })
    }

    /// Waits until it prints `word`.
    pub fn expect(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(line.trim() == word, "the client failed: {line}");
        Ok(())
    }

    /// Lets it go on.
    pub fn go_on(&mut self) -> Result<()> {
        Ok(writeln!(self.input)?)
    }

    /// Ends its input, and returns the rest of its output.
    pub fn finish(mut self) -> Result<String> {
        drop(self.input);
        let mut rest = String::new();
        self.output.read_to_string(&mut rest)?;
        Ok(rest)
    }
}
