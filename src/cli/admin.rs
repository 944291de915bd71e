//! Requests to the admin listener of a running gate.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::AdminAddress;

use super::gate_owner;

pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// Maximum bytes of a response that are read.
const MAX_RESPONSE_BYTES: u64 = 1 << 20;
const MAX_FIELDS: usize = 64;

/// The token of a session, and the processes that may receive it.
#[derive(Clone, Copy)]
pub(super) struct Bearer<'a> {
    pub(super) token: &'a str,
    pub(super) recipient: Recipient<'a>,
}

/// The users whose processes may receive a token.
#[derive(Clone, Copy)]
pub(super) enum Recipient<'a> {
    /// This user, root, and the user of the gate, by name or number.
    Gate(Option<&'a str>),
    /// Any user: the token is valid for one report only.
    Any,
}

/// The response to `GET /v1/policy`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Running {
    /// The digest of the policy in force.
    pub(super) digest: String,
    /// The generation of the policy.
    pub(super) generation: u64,
    /// Whether newer files did not load.
    #[serde(default)]
    pub(super) stale: bool,
    /// The first finding, if the policy is stale.
    #[serde(default)]
    pub(super) error: Option<String>,
}

/// The admin address of a gate without configuration.
pub(super) fn default_address() -> AdminAddress {
    AdminAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 3130)))
}

/// Parses `ADDRESS:PORT` or `unix:PATH`.
pub(super) fn parse_address(text: &str) -> Result<AdminAddress, String> {
    match text.strip_prefix("unix:") {
        Some("") => Err("no path behind `unix:`".to_owned()),
        Some(path) => Ok(AdminAddress::Unix(PathBuf::from(path))),
        None => text
            .parse()
            .map(AdminAddress::Tcp)
            .map_err(|_| "write ADDRESS:PORT, e.g. 127.0.0.1:3130, or unix:PATH".to_owned()),
    }
}

/// Formats the address as it is configured.
pub(super) fn show_address(address: &AdminAddress) -> String {
    match address {
        AdminAddress::Tcp(address) => address.to_string(),
        AdminAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Returns the policy of a running gate; `None` if no gate answers.
pub(super) fn running(address: &AdminAddress) -> Option<Running> {
    let (status, body) = ask(address, "/v1/policy").ok()?;
    (status == 200)
        .then(|| serde_json::from_str(&body).ok())
        .flatten()
}

/// Returns the status and body of `GET path`; `Err` if no HTTP response arrives in time.
pub(super) fn ask(address: &AdminAddress, path: &str) -> io::Result<(u16, String)> {
    let head = format!("GET {path} HTTP/1.1\r\n");
    say(address, &head, "", (None, PATIENCE))
}

/// Like [`ask`], with the token of a session if given.
pub(super) fn get(
    address: &AdminAddress,
    path: &str,
    bearer: Option<Bearer<'_>>,
) -> io::Result<(u16, String)> {
    let head = with_bearer(format!("GET {path} HTTP/1.1\r\n"), bearer)?;
    say(address, &head, "", (bearer, PATIENCE))
}

fn with_bearer(head: String, bearer: Option<Bearer<'_>>) -> io::Result<String> {
    let Some(Bearer { token, .. }) = bearer else {
        return Ok(head);
    };
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let why = "the session token is malformed";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(format!("{head}Authorization: Bearer {token}\r\n"))
}

/// Like [`ask`], with `POST path` and a JSON document, and with the token of a session if given. A
/// token is sent to its recipient only.
pub(super) fn post(
    address: &AdminAddress,
    path: &str,
    bearer: Option<Bearer<'_>>,
    document: &impl Serialize,
    patience: Duration,
) -> io::Result<(u16, String)> {
    let body = serde_json::to_string(document)?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    let head = with_bearer(head, bearer)?;
    say(address, &head, &body, (bearer, patience))
}

/// Like [`post`], without a token.
pub(super) fn tell(
    address: &AdminAddress,
    path: &str,
    document: &serde_json::Value,
) -> io::Result<(u16, String)> {
    post(address, path, None, document, PATIENCE)
}

fn say(
    address: &AdminAddress,
    head: &str,
    body: &str,
    (bearer, patience): (Option<Bearer<'_>>, Duration),
) -> io::Result<(u16, String)> {
    let said = try_to_say(address, head, body, (bearer, patience));
    said.map_err(|error| spoken(error, patience))
}

/// Makes an error readable. The system reports a read time-out as "would block": that is replaced.
pub(super) fn spoken(error: io::Error, patience: Duration) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", patience.as_secs()),
        ),
        _ => error,
    }
}

fn try_to_say(
    address: &AdminAddress,
    head: &str,
    body: &str,
    (bearer, patience): (Option<Bearer<'_>>, Duration),
) -> io::Result<(u16, String)> {
    let user = bearer.and_then(|bearer| match bearer.recipient {
        Recipient::Gate(user) => Some(user),
        Recipient::Any => None,
    });
    match address {
        AdminAddress::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, patience)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            if let Some(user) = user {
                gate_owner::require_tcp(&stream, user)?;
            }
            exchange(stream, &address.to_string(), head, body)
        }
        AdminAddress::Unix(socket) => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            if let Some(user) = user {
                gate_owner::require_unix(&stream, user)?;
            }
            exchange(stream, "localhost", head, body)
        }
    }
}

fn exchange(
    mut stream: impl Read + Write,
    host: &str,
    head: &str,
    body: &str,
) -> io::Result<(u16, String)> {
    let request = format!("{head}Host: {host}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_RESPONSE_BYTES).read_to_end(&mut answer)?;
    parse_answer(&answer)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

pub(super) fn parse_answer(answer: &[u8]) -> Option<(u16, String)> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(answer).ok()? else {
        return None;
    };
    let body = String::from_utf8_lossy(answer.get(length..)?).into_owned();
    Some((head.code?, body))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers one request with `answer`.
    fn gate(answer: &'static str) -> AdminAddress {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            stream.write_all(answer.as_bytes()).unwrap();
        });
        AdminAddress::Tcp(address)
    }

    #[test]
    fn a_running_gate_says_which_policy_it_has() {
        let address = gate(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n\
             {\"digest\":\"ab\",\"generation\":3,\"stale\":true,\"error\":\"a.toml:1: x\"}",
        );
        let running = running(&address).unwrap();
        assert_eq!(
            (running.digest.as_str(), running.generation, running.stale),
            ("ab", 3, true)
        );
        assert_eq!(running.error.as_deref(), Some("a.toml:1: x"));
    }

    #[test]
    fn what_is_not_a_gate_has_no_policy() {
        assert!(running(&gate("HTTP/1.1 404 Not Found\r\n\r\n")).is_none());
        assert!(running(&gate("SSH-2.0-x\r\n")).is_none());
        assert!(running(&gate("HTTP/1.1 200 OK\r\n\r\n[]")).is_none());
    }

    #[test]
    fn a_gate_that_says_nothing_is_told_in_words() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = AdminAddress::Tcp(listener.local_addr().unwrap());
        let patience = Duration::from_secs(1);
        let error = post(&address, "/v1/sessions", None, &(), patience).unwrap_err();
        assert_eq!(error.to_string(), "no answer within 1 s");
    }

    #[test]
    fn an_admin_address_is_tcp_or_a_path() {
        for text in [
            "127.0.0.1:3130",
            "[::1]:3130",
            "unix:/run/tidegate/admin.sock",
        ] {
            assert_eq!(show_address(&parse_address(text).unwrap()), text);
        }
        for text in ["", "unix:", "localhost", "3130", "127.0.0.1"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }
}
