//! The decision log: what is written about every flow, and the promise that nothing passes
//! unrecorded.
//!
//! A flow takes a [`Permit`] before it does anything else: room in memory for every line it will
//! leave. Lines are made where they happen, queued in the room of their permit, and written by one
//! thread of their own (`writer`), many at once, so that a stuck disk holds up that thread and no
//! other. A flow that may pass acts only when its `decision` line is in the file.
//!
//! Why not `fdatasync` before a flow acts: it would cost each flow milliseconds to guard against
//! the machine's end, while the process's own end, which is what happens, is guarded by `write`.

mod encode;
mod json;
mod line;
mod queue;
mod recorder;
mod scan;
mod sink;
mod tally;
#[cfg(test)]
mod tests;
mod writer;

pub use line::{
    Blame, CloseFacts, End, Event, FlowFacts, JailFacts, Outcome, SCHEMA, Said, SessionFacts,
    Timings, TlsMode,
};
pub use recorder::{Permit, RecordUnavailable, Recorder, Unavailable};
pub use tally::{Counts, Kind, Tally};
