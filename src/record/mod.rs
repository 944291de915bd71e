//! The decision log: what is written about every flow, and the promise that nothing passes
//! unrecorded.
//!
//! A flow takes a [`Permit`] before it does anything else: room in memory for every line it will
//! leave. Lines are made where they happen and queued in the room of their permit (`queue`). A flow
//! that may pass acts only when its `decision` line is in the file.
//!
//! **Who writes** (`writer`). A flow that waits for its line writes the queue itself, lines of other
//! flows included: waking a thread for each line would cost more than the line. It does so only
//! where a write ends soon: to a regular file on a file system of this machine, whose last writes
//! took less than 5 ms. Else a thread of its own writes, so that a stuck disk, network file system
//! or pipe holds up that thread and no other. The thread also writes lines that no flow waits for,
//! signs, rotates and removes files.
//!
//! Why not `fdatasync` before a flow acts: it would cost each flow milliseconds to guard against
//! the machine's end, while the process's own end, which is what happens, is guarded by `write`.

mod chain;
mod encode;
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

pub use key::public_key;
pub use line::{
    ApprovalFacts, Asker, Blame, CallFacts, CloseFacts, End, Event, ExceptionFacts, FlowFacts,
    JailFacts, Outcome, ReplayFacts, SCHEMA, Said, SessionFacts, Timings, TlsMode,
};
pub use recorder::{Permit, QueuedEvent, RecordUnavailable, Recorder, Unavailable};
pub use tally::{Counted, Counts, Kind, Tally};
pub use verify::{Ending, Flaw, Verifier, parse_public_key};
