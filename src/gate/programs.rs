//! Records the programs that the gate starts.

use crate::dial::{ProgramEnd, ProgramStart, ProgramWitness};
use crate::record::{Event, Recorder};

/// Writes each start and each end of a program to the decision log.
#[derive(Debug)]
pub struct ProgramRecord(pub Recorder);

impl ProgramWitness for ProgramRecord {
    fn starts(&self, start: &ProgramStart<'_>) {
        self.0.event(&Event::ProgramStarted {
            path: start.path.into(),
            detail: start.why.into(),
        });
    }

    fn ended(&self, start: &ProgramStart<'_>, end: &ProgramEnd) {
        self.0.event(&Event::ProgramEnded {
            path: start.path.into(),
            detail: start.why.into(),
            result: end.result,
            code: end.code,
            took: end.took,
        });
    }
}
