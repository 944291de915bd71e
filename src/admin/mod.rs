//! stub
use std::sync::Arc;
/// s
pub struct Status {
    /// s
    pub ready: bool,
    /// s
    pub why_not: Option<String>,
    /// s
    pub draining: bool,
    /// s
    pub digest: Arc<str>,
    /// s
    pub generation: u64,
    /// s
    pub stale: bool,
    /// s
    pub error: Option<String>,
}
/// s
pub struct Admin {
    /// s
    pub metrics: crate::metrics::Metrics,
    /// s
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
}
/// s
pub enum AdminListener {
    /// s
    Tcp(tokio::net::TcpListener),
    /// s
    Unix(tokio::net::UnixListener),
}
/// s
pub async fn serve(_l: AdminListener, _a: Admin, _s: tokio_util::sync::CancellationToken) {}
