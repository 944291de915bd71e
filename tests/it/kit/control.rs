//! Writing to the gate: at its control socket, or at its admin listener.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::{DEADLINE, Gate, Message, Reader};

/// A session that was started.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its id.
    pub(crate) id: String,
    /// Its token.
    pub(crate) token: String,
    /// All that was answered.
    pub(crate) answer: Value,
}

impl Gate {
    /// Posts JSON at the control socket.
    #[track_caller]
    pub(crate) fn control(&self, path: &str, bearer: Option<&str>, body: &Value) -> Message {
        let socket = UnixStream::connect(self.folder().join("control.sock")).expect("a socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
        post(socket, path, bearer, body)
    }

    /// Reads at the control socket.
    #[track_caller]
    pub(crate) fn control_get(&self, path: &str) -> Message {
        let mut socket = UnixStream::connect(self.folder().join("control.sock")).expect("a socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        socket.write_all(head.as_bytes()).expect("sent");
        let answer = Reader::default().answer(&mut socket, "GET");
        answer.expect("an answer")
    }

    /// Posts JSON at the admin listener.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, bearer: Option<&str>, body: &Value) -> Message {
        let socket = TcpStream::connect(self.admin()).expect("a socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
        post(socket, path, bearer, body)
    }

    /// Starts a session at the control socket.
    #[track_caller]
    pub(crate) fn session(&self, request: &Value) -> Session {
        Session::of(&self.control("/v1/sessions", None, request))
    }

    /// Starts a session that comes from another one.
    #[track_caller]
    pub(crate) fn child(&self, parent: &Session, request: &Value) -> Session {
        Session::of(&self.post("/v1/sessions", Some(&parent.token), request))
    }

    /// Revokes by name.
    #[track_caller]
    pub(crate) fn revoke(&self, name: &str) {
        let answer = self.control(
            "/v1/sessions/revoke",
            None,
            &serde_json::json!({ "name": name }),
        );
        assert_eq!(answer.status(), 204, "{answer:?}");
    }
}

impl Session {
    #[track_caller]
    fn of(answer: &Message) -> Self {
        assert_eq!(answer.status(), 201, "{answer:?}");
        let answer = answer.json();
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        Self {
            id: text("session"),
            token: text("token"),
            answer,
        }
    }

    /// What was answered.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.answer[name].as_str().unwrap_or_default()
    }
}

#[track_caller]
fn post(mut socket: impl Read + Write, path: &str, bearer: Option<&str>, body: &Value) -> Message {
    let body = body.to_string();
    let bearer = bearer.map_or_else(String::new, |token| {
        format!("Authorization: Bearer {token}\r\n")
    });
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n{bearer}\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).expect("sent");
    socket.write_all(body.as_bytes()).expect("sent");
    Reader::default()
        .answer(&mut socket, "POST")
        .expect("an answer")
}
