//! Flows in text form: in the examples of rules, and in trials.

use crate::name::{Path, Target, Url};

/// A flow in text form.
#[derive(Clone, Debug)]
pub(super) struct Example {
    pub(super) target: Target,
    /// The request; `None` for a CONNECT alone.
    pub(super) request: Option<Request>,
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) tls: bool,
    pub(super) method: String,
    pub(super) path: Path,
    pub(super) body: Contents,
}

/// The content of the body.
#[derive(Clone, Debug)]
pub(super) enum Contents {
    /// Unknown.
    Unknown,
    /// A push of that ref.
    Push(Box<str>),
    /// A call of that tool.
    Tool(Box<str>),
}

impl Example {
    /// Parses `host:port`, `[METHOD ]URL`, `PUSH URL REF`, `CLONE URL` or `TOOL URL NAME`; the
    /// error is for a person.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (method, rest, fact) = match words.as_slice() {
            [rest] => (None, *rest, None),
            [method, rest] => (Some(*method), *rest, None),
            [method @ ("PUSH" | "TOOL"), rest, fact] => (Some(*method), *rest, Some(*fact)),
            _ => return Err("write only a method and a URL".into()),
        };
        if method.is_some_and(|method| method != method.to_ascii_uppercase()) {
            return Err("methods are written in capitals".into());
        }
        if !rest.contains("://") {
            if method.is_some() {
                return Err("a method needs a URL".into());
            }
            let target = Target::from_connect(rest.as_bytes());
            return Ok(Self {
                target: target.map_err(|error| error.to_string())?,
                request: None,
            });
        }
        let url = Url::parse(rest.as_bytes()).map_err(|error| error.to_string())?;
        Ok(Self {
            request: Some(Request::read(url.tls, url.path, method, fact)?),
            target: url.target,
        })
    }
}

impl Request {
    fn read(
        tls: bool,
        path: Path,
        method: Option<&str>,
        fact: Option<&str>,
    ) -> Result<Self, String> {
        let below = |rest: &str| {
            let text = format!("{}{rest}", path.path().trim_end_matches('/'));
            Path::parse(text.as_bytes()).map_err(|error| error.to_string())
        };
        let (method, path, body) = match (method, fact) {
            (Some("PUSH"), Some(reference)) => {
                let whole = match reference.strip_prefix("refs/") {
                    Some(_) => reference.to_owned(),
                    None => format!("refs/heads/{reference}"),
                };
                (
                    "POST",
                    below("/git-receive-pack")?,
                    Contents::Push(whole.into()),
                )
            }
            (Some("PUSH"), None) => return Err("a push needs a ref behind the URL".into()),
            (Some("TOOL"), Some(tool)) => ("POST", path, Contents::Tool(tool.into())),
            (Some("TOOL"), None) => return Err("a tool needs its name behind the URL".into()),
            (Some("CLONE"), _) => {
                let path = below("/info/refs?service=git-upload-pack")?;
                ("GET", path, Contents::Unknown)
            }
            (method, _) => (method.unwrap_or("GET"), path, Contents::Unknown),
        };
        Ok(Self {
            tls,
            method: method.to_owned(),
            path,
            body,
        })
    }
}
