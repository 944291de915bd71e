//! The decision log: the records of every flow, and the guarantee that no flow passes without a
//! record.
//!
//! A flow takes a [`Permit`] before it does anything else: memory for every line of the flow. A
//! flow makes its lines and queues them in the memory of its permit (`queue`). An allowed flow acts
//! only when its `decision` line is in the file.
//!
//! **Who writes** (`writer`). A flow that waits for its line writes the queue itself, lines of
//! other flows included: waking a thread for each line would cost more than the line. A flow writes
//! only if a write ends soon: to a regular file on a local file system, whose last writes took less
//! than 5 ms. Otherwise a separate thread writes, so that a stuck disk, network file system or pipe
//! blocks only that thread. The thread also writes lines that no flow waits for, and signs, rotates
//! and removes files.
//!
//! The gate does not call `fdatasync` before a flow acts: each flow would wait milliseconds to
//! cover a crash of the machine. A crash of the process, the usual case, loses no line after
//! `write`.

mod chain;
mod decision_text;
mod encode;
mod flow;
mod json;
mod key;
mod line;
mod queue;
mod recorder;
mod repeats;
mod rotation;
mod scan;
mod sink;
mod tally;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use flow::FlowRecord;
pub use key::public_key;
pub use line::{
    ApprovalFacts, Asker, Blame, CallFacts, CloseFacts, End, Event, ExceptionFacts, FlowFacts,
    JailFacts, Outcome, ReplayFacts, SCHEMA, Said, SessionFacts, Timings, TlsMode,
};
pub use recorder::{Permit, QueuedEvent, RecordUnavailable, Recorder, Unavailable};
pub use tally::{Counted, Counts, Kind, Tally};
pub use verify::{Ending, Flaw, Verifier, parse_public_key};
