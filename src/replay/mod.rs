//! Judges recorded flows again, with their recorded facts.
//!
//! A `decision` line holds what its decision depended on: the caller's tier and what it came from,
//! groups, user and repositories, the destination, what the request did, and what a rule asked
//! about. [`Recorded`] reads one line, [`Flow`] makes of it what a policy decides, and [`Judge`]
//! compares the decision with the one on record; [`Pair`] compares the decisions of two policies.
//!
//! What a line does not hold is never guessed: where it could change the verdict, the flow is
//! [`Undetermined`], and the reason says what is missing. So a policy that wrote the lines finds no
//! change in them.
//!
//! Lines are the text of another process, maybe of an agent: they are read within bounds, and what
//! they say is not trusted beyond what this module computes from it.

mod flow;
mod judge;
mod lines;
mod needs;
mod pair;
mod recorded;
mod report;

pub use flow::{Flow, Request, who};
pub use judge::{Effect, Judge, Judged, Judging, NotJudged, Outcome, Undetermined};
pub use lines::{Line, Lines, MAX_LINE, each as each_line};
pub use needs::{Does, Names, Need, Needs, Scope, Seen};
pub use pair::Pair;
pub use recorded::{Recorded, Text};
pub use report::{Change, Group, Own, Report};
