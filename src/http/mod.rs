//! HTTP syntax: reads bytes into typed heads and bodies, strictly, and writes them.
//!
//! This module has no policy and no gate: [`proxy`](crate::proxy) decides what a request means and
//! whether it passes.

pub(crate) mod http1;
pub(crate) mod http2;
