//! The user manual, beside the code it describes.
//!
//! - [`start`]: point a shell, a container or a job at a gate.
//! - [`policy`]: how to write a policy, and how the gate decides.
//! - [`actions`]: what requests do, in the words of their services.
//! - [`agents`]: coding agents: what is tied to their calls, and what they contact.
//! - [`ages`]: rules that say how old a version of a package has to be.
//! - [`claude_code`]: sessions, tool calls and settings of Claude Code.
//! - [`credentials`]: rules that name the only credentials for a destination.
//! - [`identity`]: who asks, which repository it is, and what counts as evidence.
//! - [`interception`]: which TLS is inspected, and how clients come to trust the authority.
//! - [`jail`]: a command whose only way to the network is the gate.
//! - [`mcp`]: servers and tools that agents may use.
//! - [`operations`]: records, metrics, reload, drain, limits.
//! - [`parents`]: targets that are reached through another proxy.
//! - [`refusals`]: every reason for a refusal, and what to do then.
//! - [`upstreams`]: mTLS to destinations, for callers without keys.

pub mod actions;
pub mod agents;
pub mod ages;
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
