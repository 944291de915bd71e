//! HTTP as bytes, read into typed heads and bodies and written back, strictly.
//!
//! No policy and no gate: what a request means and whether it passes is decided in
//! [`proxy`](crate::proxy).

pub(crate) mod http1;
pub(crate) mod http2;
