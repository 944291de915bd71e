//! tidegate: the one way out for a coding agent.

pub mod clock;
pub mod diag;
pub mod name;

pub mod policy;

pub mod config;

pub mod dial;
pub mod identity;
pub mod metrics;
pub mod record;

pub mod gate;

pub mod admin;
pub mod proxy;

pub mod app;
pub mod cli;
