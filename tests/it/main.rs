//! tidegate from outside: one binary with every scenario, the proxy as a black box.
#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops where something is not as it says, and the proxy is in another process"
)]

mod admin;
mod admin_hostile;
mod admin_tls;
mod admission;
mod adversary;
mod agent;
mod agents;
mod ages;
mod an_hour;
mod answers;
mod approvals;
mod approvals_ledger;
mod authority;
mod browser;
mod bypass;
mod callers;
mod chained;
mod clients;
mod connect;
mod contained;
mod credentials;
mod deploy;
mod descriptors;
mod doctor;
mod drain;
mod evidence;
mod exceptions;
mod exec;
mod first_reader;
mod fleet;
mod forward;
mod hello;
mod hooks;
mod http2;
mod http2_conformance;
mod http2_fragments;
mod http2_hostile;
mod http2_origin;
mod identity;
mod inspect;
mod inspect_api;
mod inspect_bypass;
mod inspect_certificates;
mod inspect_clients;
mod inspect_hidden;
mod inspect_http2;
mod inspect_narrow;
mod inspect_shared;
mod inspect_sockets;
mod jail;
mod kit;
mod limits;
mod lingering;
mod mcp;
mod next_run;
mod notify;
mod oidc;
mod parents;
mod paths;
mod policy_diff;
mod policy_walkthrough;
mod promote;
mod records;
mod records_whole;
mod redteam;
mod redteam_live;
mod reload;
mod replay;
mod repository_policies;
mod retries;
mod reviewers;
mod sameness;
mod session_cli;
mod sessions;
mod shape;
mod transcripts;
mod trusted_files;
mod upstreams;
mod walkthrough;
mod walls;
