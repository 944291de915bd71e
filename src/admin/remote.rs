//! The admin listener for other hosts: with TLS, and with fewer calls than the listener of this
//! host.
//!
//! Health and the exchange of tokens are open to any client that TLS admits: an exchange carries
//! its own evidence. Approvals are open to reviewers with a certificate or an issuer's token.
//! Metrics and the policy's state need a client certificate or the token of `token-file`. There are
//! no other calls.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::AdminTls;
use crate::gate::Gate;
use crate::identity::Certificate;
use crate::record::Asker;
use crate::tls::ServerStream;

use super::approvals::Shown;
use super::body::bearer_token;

/// The time limit of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The listener for other hosts.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The gate, whose present generation has the certificates.
    pub gate: Arc<Gate>,
    /// The configuration at the time of binding.
    pub bound: Arc<AdminTls>,
}

impl Remote {
    /// The present configuration; that of the binding if the listener is no longer configured.
    fn written(&self) -> Arc<AdminTls> {
        let snapshot = self.gate.snapshot.load();
        let now = snapshot.admin_tls.as_ref();
        now.unwrap_or(&self.bound).clone()
    }

    /// Performs the TLS handshake. The client's certificate goes to `shown`, its name to `asker`.
    pub(super) async fn shake(
        &self,
        socket: TcpStream,
        (asker, shown): (&mut Asker, &mut Shown),
    ) -> Option<Box<ServerStream>> {
        let written = self.written();
        let snapshot = self.gate.snapshot.load_full();
        let server = snapshot.tls.with(&self.bound.tls)?;
        let metrics = &self.gate.metrics;
        let accepted = match timeout(HANDSHAKE_TIMEOUT, server.accept(socket)).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(why)) => {
                metrics.handshake("client", why.0);
                return None;
            }
            Err(_) => {
                metrics.handshake("client", "timeout");
                return None;
            }
        };
        if !accepted.chain.is_empty() {
            let clients = written.tls.clients.as_ref();
            let kinds = clients.map(|clients| clients.identity.as_slice());
            let certificate = Certificate::read(accepted.chain, kinds.unwrap_or_default());
            let Some(certificate) = certificate else {
                metrics.handshake("client", "certificate_nameless");
                return None;
            };
            let name = certificate.subject.as_ref();
            asker.certificate = Some(name.unwrap_or(&certificate.fingerprint).clone());
            shown.0 = Some(Arc::new(certificate));
        }
        metrics.handshake("client", "ok");
        Some(accepted.stream)
    }

    fn opens(&self, request: &Request) -> bool {
        let asker = request.extensions().get::<Asker>();
        if asker.is_some_and(|asker| asker.certificate.is_some()) {
            return true;
        }
        let written = self.written();
        let (Some(token), Some(shown)) = (&written.token, bearer_token(request.headers())) else {
            return false;
        };
        aws_lc_rs::constant_time::verify_slices_are_equal(token.text.as_bytes(), shown.as_bytes())
            .is_ok()
    }
}

/// Allows reads only with a client certificate or the token.
pub(super) async fn may_read(
    State(remote): State<Remote>,
    request: Request,
    next: Next,
) -> Response {
    if remote.opens(&request) {
        return next.run(request).await;
    }
    let why =
        "show a client certificate, or the token of `token-file` as `Authorization: Bearer`\n";
    let ask = (header::WWW_AUTHENTICATE, "Bearer realm=\"tidegate\"");
    (StatusCode::UNAUTHORIZED, [ask], why).into_response()
}
