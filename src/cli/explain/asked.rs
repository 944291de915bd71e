//! The subject of `explain`.

use crate::name::{Path, Target, Url};
use crate::policy::RequestFacts;
use crate::replay;

/// The subject of a question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Asked {
    /// A flow that was not attempted yet.
    Flow(Flow),
    /// The beginning or end of a flow's id, or the whole id.
    Recorded(String),
}

/// A flow to judge.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Flow {
    pub(super) target: Target,
    /// Method and path of a plain request; `None` for a CONNECT.
    pub(super) request: Option<(String, Path)>,
    /// Method and path inside the tunnel, if given.
    pub(super) inside: Option<(String, Path)>,
    /// Whether the request is inside a tunnel.
    pub(super) tls: bool,
    /// The recorded facts of the request, if any; its path is not recorded then.
    pub(super) recorded: Option<Box<RequestFacts>>,
    /// Notes on the question.
    pub(super) notes: Vec<&'static str>,
}

const OPAQUE: &str = "https goes through an opaque CONNECT: method and path inside the tunnel are \
    not seen, so the host and port decide.";
const INSPECTED: &str = "TLS is ended here: the CONNECT passes, and then each request is judged; what \
    only its body tells is judged when that was read.";
const NO_METHOD: &str = "--method is ignored: a tunnel hides the method.";

impl Asked {
    /// Parses a URL, `host[:port][/path]` or an id; errors are for a person.
    pub(super) fn parse(text: &str, method: Option<&str>) -> Result<Self, String> {
        if is_flow_id(text) {
            return Ok(Self::Recorded(text.to_ascii_lowercase()));
        }
        if let Some(method) = method
            && (method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()))
        {
            return Err("--method: methods are written in capitals".to_owned());
        }
        let url = match (text.contains("://"), text.contains('/')) {
            (true, _) => text.to_owned(),
            (false, true) => format!("https://{text}"),
            (false, false) => return connect(text, method).map(Self::Flow),
        };
        let Url { tls, target, path } =
            Url::parse(url.as_bytes()).map_err(|error| error.to_string())?;
        if tls {
            return Ok(Self::Flow(Flow {
                target,
                request: None,
                inside: Some((method.unwrap_or("GET").to_owned(), path)),
                tls: false,
                recorded: None,
                notes: notes(&[OPAQUE], method),
            }));
        }
        let request = Some((method.unwrap_or("GET").to_owned(), path));
        Ok(Self::Flow(Flow {
            target,
            request,
            inside: None,
            tls: false,
            recorded: None,
            notes: Vec::new(),
        }))
    }
}

impl Flow {
    /// Formats `CONNECT host:port`, or method and URL without the query, which may contain secrets.
    pub(super) fn show(&self) -> String {
        match &self.request {
            None => format!("CONNECT {}", self.target),
            Some((method, path)) => {
                let scheme = if self.tls { "https" } else { "http" };
                let unseen = self.recorded.as_ref().and_then(|it| it.unseen_path);
                let path = unseen.map_or(path.path(), |_| "");
                format!("{method} {scheme}://{}{path}", self.target)
            }
        }
    }

    /// Makes the subject of a recorded flow.
    pub(super) fn recorded(flow: replay::Flow) -> Self {
        let request = flow.request;
        Self {
            target: flow.target,
            tls: request.as_ref().is_some_and(|it| it.tls),
            recorded: request.as_ref().map(|it| Box::new(it.facts.clone())),
            request: request.map(|it| (it.method.into(), it.path)),
            inside: None,
            notes: Vec::new(),
        }
    }

    /// Returns the request inside an inspected tunnel.
    pub(super) fn request_inside(&self) -> Option<Self> {
        let request = self.inside.clone()?;
        Some(Self {
            target: self.target.clone(),
            request: Some(request),
            inside: None,
            tls: true,
            recorded: None,
            notes: vec![INSPECTED],
        })
    }
}

/// Parses `host:port`, or a host with the default port 443.
fn connect(text: &str, method: Option<&str>) -> Result<Flow, String> {
    let target = Target::from_authority(text.as_bytes(), 443).map_err(|error| error.to_string())?;
    Ok(Flow {
        target,
        request: None,
        inside: None,
        tls: false,
        recorded: None,
        notes: notes(&[], method),
    })
}

fn notes(first: &[&'static str], method: Option<&str>) -> Vec<&'static str> {
    first
        .iter()
        .copied()
        .chain(method.map(|_| NO_METHOD))
        .collect()
}

/// Whether a text is a UUID, or at least eight digits of its beginning or end.
fn is_flow_id(text: &str) -> bool {
    matches!(text.len(), 8..=36)
        && text
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        && text.bytes().any(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str, method: Option<&str>) -> Result<(String, usize), String> {
        match Asked::parse(text, method)? {
            Asked::Flow(flow) => Ok((flow.show(), flow.notes.len())),
            Asked::Recorded(id) => Ok((format!("flow {id}"), 0)),
        }
    }

    #[test]
    fn a_question_is_a_url_a_host_or_an_id() {
        for (text, method, shown, notes) in [
            ("https://Docs.rs/a?b", None, "CONNECT docs.rs:443", 1),
            (
                "https://docs.rs:8443/",
                Some("POST"),
                "CONNECT docs.rs:8443",
                2,
            ),
            ("docs.rs/crate", None, "CONNECT docs.rs:443", 1),
            ("docs.rs", None, "CONNECT docs.rs:443", 0),
            ("docs.rs:22", Some("GET"), "CONNECT docs.rs:22", 1),
            (
                "http://example.com/a?b",
                None,
                "GET http://example.com:80/a",
                0,
            ),
            (
                "http://example.com",
                Some("PUT"),
                "PUT http://example.com:80/",
                0,
            ),
            ("0195F3C2", None, "flow 0195f3c2", 0),
            (
                "0195f3c2-0000-7000-8000-000000000001",
                None,
                "flow 0195f3c2-0000-7000-8000-000000000001",
                0,
            ),
        ] {
            assert_eq!(show(text, method), Ok((shown.to_owned(), notes)), "{text}");
        }
    }

    #[test]
    fn a_question_that_no_client_could_ask_is_refused() {
        for (text, method) in [
            ("", None),
            ("ftp://example.com/", None),
            ("https://user@example.com/", None),
            ("http://example.com/", Some("get")),
            ("http://example.com/../x", None),
            ("127.1", None),
        ] {
            assert!(show(text, method).is_err(), "{text}");
        }
    }
}
