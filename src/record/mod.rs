//! The decision log: what is written about every flow, and the promise that nothing passes
//! unrecorded.

mod line;
mod recorder;

pub use line::{Blame, CloseFacts, End, Event, FlowFacts, Outcome, SCHEMA, Timings, TlsMode};
pub use recorder::{Permit, RecordUnavailable, Recorder, Unavailable};
