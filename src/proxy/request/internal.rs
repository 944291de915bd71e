//! `http://tidegate.internal/`: the certificates to trust, with instructions, and the caller's own
//! requests for approval. The gate itself answers, to each identified caller; it resolves and dials
//! nothing. The admin interface is not served here.

use crate::http::http1::{Method, RequestHead};
use crate::name::{Host, HostName, Target, Url};
use crate::policy::{Action, Basis, Category, Mode};
use crate::proxy::connection::Connection;
use crate::proxy::flow::{Flow, Known};
use crate::proxy::refusal::{Code, Refusal};
use crate::record::{End, Outcome};
use crate::tls::{self, Authority};

use super::{After, requests};

/// The host name of the pages. No registrar can sell it: `.internal` is for private use.
const NAME: &str = "tidegate.internal";

/// A page: status, type, content.
type Page = (u16, &'static str, Vec<u8>);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Whether the target is the host of the gate's own pages.
pub(in crate::proxy) fn is_own(target: &Target) -> bool {
    matches!(&target.host, Host::Name(name) if is_own_name(name))
}

/// Whether the name is the host name of the gate's own pages.
pub(in crate::proxy) fn is_own_name(name: &HostName) -> bool {
    name.as_str() == NAME
}

/// The refusal of a tunnel to the gate's own pages.
pub(in crate::proxy) fn no_tunnel() -> Refusal {
    let detail = "the gate's own pages are plain HTTP: ask for http://tidegate.internal/";
    Refusal::because(Code::NotAllowed, detail)
}

/// Answers a request for one of the gate's own pages.
pub(in crate::proxy) async fn answer(
    connection: &mut Connection,
    flow: &mut Flow,
    head: &RequestHead,
    url: &Url,
    known: &Known,
) -> Result<After, Refusal> {
    let head_only = head.method == Method::Head;
    if url.target.port != 80 || head.upgrade().is_some() {
        let detail = "the gate's own pages are at http://tidegate.internal/";
        return Err(Refusal::malformed(400, detail));
    }
    let snapshot = flow.snapshot().to_shared();
    let path = url.path.path();
    let page = if requests::is_here(path) {
        let (status, document) = requests::answer(connection, flow, head, (path, known)).await?;
        (status, JSON, format!("{document}\n").into_bytes())
    } else {
        only_reads(head)?;
        page(path, snapshot.authority.as_deref())
    };
    // An earlier-read body stays in the connection's buffer, so no other request may follow.
    let keep_alive = head.keep_alive && head.body.is_empty();
    tell(flow, page.0);
    flow.settle_alone(known).await?;
    flow.close.requests = 1;
    let bytes = response(flow, page, keep_alive, head_only);
    let patience = snapshot.limits.header_timeout;
    let told = tokio::time::timeout(patience, connection.say(&bytes)).await;
    flow.ended(End::Closed, None, None);
    Ok(match told {
        Ok(Ok(())) if keep_alive => After::Keep,
        _ => After::Close,
    })
}

/// Refuses any request but a plain GET or HEAD.
fn only_reads(head: &RequestHead) -> Result<(), Refusal> {
    if !matches!(head.method, Method::Get | Method::Head) {
        let detail = "the gate's own pages can only be read";
        return Err(Refusal::malformed(405, detail));
    }
    if !head.body.is_empty() {
        let detail = "ask for http://tidegate.internal/ with a plain GET";
        return Err(Refusal::malformed(400, detail));
    }
    Ok(())
}

/// Sets the facts of the record: the gate itself answers, no rule of the policy decides.
fn tell(flow: &mut Flow, status: u16) {
    let facts = &mut flow.facts;
    facts.outcome = Outcome::Allow;
    facts.mode = Some(Mode::Enforce);
    facts.reason = "allowed";
    facts.rule = Some(NAME.into());
    facts.category = Some(Category::Unknown);
    facts.category_basis = Some(Basis::None);
    facts.action = Some(Action::Read);
    facts.status = Some(status);
}

fn response(flow: &Flow, page: Page, keep_alive: bool, head_only: bool) -> Vec<u8> {
    let (status, kind, content) = page;
    let phrase = match status {
        200 => "OK",
        404 => "Not Found",
        409 => "Conflict",
        429 => "Too Many Requests",
        403 => "Forbidden",
        _ => "Bad Request",
    };
    let close = if keep_alive {
        ""
    } else {
        "Connection: close\r\n"
    };
    let head = format!(
        "HTTP/1.1 {status} {phrase}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nX-Tidegate-Flow: {}\r\nVia: 1.1 tidegate\r\n{close}\r\n",
        content.len(),
        flow.facts.flow,
    );
    let body = if head_only { Vec::new() } else { content };
    [head.into_bytes(), body].concat()
}

fn page(path: &str, authority: Option<&Authority>) -> Page {
    let text = |status, text: &str| (status, TEXT, text.as_bytes().to_vec());
    match (path, authority) {
        ("/", None) => text(200, NOTHING),
        ("/", Some(_)) => text(200, INSTRUCTIONS),
        ("/ca.pem" | "/ca.crt", None) => text(404, NOTHING),
        ("/ca.pem", Some(authority)) => {
            let pem = tls::pem(authority.published());
            (200, "application/x-pem-file", pem.into_bytes())
        }
        ("/ca.crt", Some(authority)) => {
            let current = authority.published().next().unwrap_or_default();
            (200, "application/pkix-cert", current.to_vec())
        }
        _ => text(
            404,
            "There is no such page. See http://tidegate.internal/\n",
        ),
    }
}

const NOTHING: &str = "This is tidegate, the proxy that this machine reaches the outside through.\n\
    It looks into no TLS: there is no certificate to trust.\n";

const INSTRUCTIONS: &str = "\
This is tidegate, the proxy that this machine reaches the outside through.
For some destinations it looks into TLS. It shows a certificate of its own for them, which programs
have to trust:

  http://tidegate.internal/ca.pem   PEM: the current certificate, then former ones
  http://tidegate.internal/ca.crt   DER: the current certificate

For the whole system (as root):

  Debian, Ubuntu, Alpine
    curl -s http://tidegate.internal/ca.crt |
      openssl x509 -inform der -out /usr/local/share/ca-certificates/tidegate.crt
    update-ca-certificates
  Fedora, RHEL
    curl -so /etc/pki/ca-trust/source/anchors/tidegate.pem http://tidegate.internal/ca.pem
    update-ca-trust

Programs with roots of their own:

  Node and Deno add a file to theirs: NODE_EXTRA_CA_CERTS=/path/ca.pem, DENO_CERT=/path/ca.pem
  These take one file instead of their roots: the system's roots and ca.pem in one file.
    SSL_CERT_FILE, CURL_CA_BUNDLE, GIT_SSL_CAINFO, REQUESTS_CA_BUNDLE, PIP_CERT, CARGO_HTTP_CAINFO,
    AWS_CA_BUNDLE, NIX_SSL_CERT_FILE, CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE
  Java: keytool -importcert -cacerts -alias tidegate -file ca.crt

With tidegate installed, `tidegate ca install` and `tidegate env` do all of this.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_authority_there_is_nothing_to_trust() {
        assert_eq!(page("/", None).0, 200);
        for path in [
            "/ca.pem",
            "/ca.crt",
            "/metrics",
            "/v1/flows",
            "/ca.key",
            "//",
        ] {
            assert_eq!(page(path, None).0, 404, "{path}");
        }
    }

    #[test]
    fn only_that_name_is_its_own() {
        let is = |target: &[u8]| is_own(&Target::from_connect(target).unwrap());
        assert!(is(b"tidegate.internal:80") && is(b"TIDEGATE.internal:443"));
        assert!(!is(b"x.tidegate.internal:80") && !is(b"tidegate.internal.example:80"));
    }
}
