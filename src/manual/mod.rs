//! The user manual, beside the code it describes.
//!
//! - [`start`]: point a shell, a container or a job at a gate.
//! - [`policy`]: how to write one, and how a decision comes about.
//! - [`actions`]: what requests do, in the words of their services.
//! - [`claude_code`]: sessions, tool calls and settings of Claude Code.
//! - [`credentials`]: rules that name the only credentials for a destination.
//! - [`identity`]: who asks, and what that is worth.
//! - [`interception`]: what is looked into, and how clients come to trust it.
//! - [`jail`]: a command whose only way out is the gate.
//! - [`mcp`]: servers and tools that agents may use.
//! - [`operations`]: records, metrics, reload, drain, limits.
//! - [`parents`]: targets that are reached by another proxy.
//! - [`refusals`]: every way to be told no, and what to do then.
//! - [`upstreams`]: mTLS to destinations, for callers without keys.

pub mod actions;
pub mod claude_code;
pub mod credentials;
pub mod identity;
pub mod interception;
pub mod jail;
pub mod mcp;
pub mod operations;
pub mod parents;
pub mod policy;
pub mod refusals;
pub mod start;
pub mod upstreams;
