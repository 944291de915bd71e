//! Real agents behind the gate, with a scripted model: every flow is tied to the call that made it,
//! or to none, and the model reads nothing false.
//!
//! The truth is the model's own list of the calls that it asked for (each destination has the name
//! of its call as its first label) and the agent's own telemetry. Where an agent is not installed, or
//! this user cannot make its network, a test says NOT TESTED HERE. `TIDEGATE_KEEP` names a folder in
//! which the files of each run are kept.

mod agent;
mod claude;
mod contacts;
mod others;
mod played;
mod tables;
mod world;
