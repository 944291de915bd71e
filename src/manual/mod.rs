//! The user manual, beside the code it describes.
//!
//! - [`start`]: point a shell, a container or a job at a gate.
//! - [`policy`]: how to write one, and how a decision comes about.
//! - [`claude_code`]: sessions, tool calls and settings of Claude Code.
//! - [`identity`]: who asks, and what that is worth.
//! - [`interception`]: what is looked into, and how clients come to trust it.
//! - [`jail`]: a command whose only way out is the gate.
//! - [`operations`]: records, metrics, reload, drain, limits.
//! - [`refusals`]: every way to be told no, and what to do then.

pub mod claude_code;
pub mod identity;
pub mod interception;
pub mod jail;
pub mod operations;
pub mod policy;
pub mod refusals;
pub mod start;
