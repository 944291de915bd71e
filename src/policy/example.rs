//! Flows that somebody wrote down: in the examples of a rule, and in trials.

use crate::name::{Path, Target, Url};

use super::compile::Policy;
use super::decide::{Attempt, Query, Who};
use super::verdict::{Decision, Verdict};
use super::{Action, Deed, Inspect, Seen};

/// A flow that somebody wrote.
#[derive(Debug)]
pub(super) struct Example {
    target: Target,
    /// What is asked for; `None` for a CONNECT of which nothing more is said.
    request: Option<Request>,
}

#[derive(Debug)]
struct Request {
    tls: bool,
    method: String,
    path: Path,
    says: Says,
}

/// What the body says.
#[derive(Debug)]
enum Says {
    /// Nothing that is known.
    Nothing,
    /// A push of that ref.
    Push(Box<str>),
    /// A call of that tool.
    Tool(Box<str>),
}

impl Example {
    /// Reads `host:port`, `[METHOD ]URL`, `PUSH URL REF`, `CLONE URL` or `TOOL URL NAME`; the error
    /// is for a person.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (method, rest, fact) = match words.as_slice() {
            [rest] => (None, *rest, None),
            [method, rest] => (Some(*method), *rest, None),
            [method @ ("PUSH" | "TOOL"), rest, fact] => (Some(*method), *rest, Some(*fact)),
            _ => return Err("a method and a URL are all that is read".into()),
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

    /// What is said of it: of https the CONNECT first, then, where TLS is ended, the request.
    pub(super) fn decide(&self, policy: &Policy, who: &Who) -> Decision {
        let ask = |attempt| {
            let target = &self.target;
            policy.decide(&Query {
                who,
                target,
                attempt,
            })
        };
        let inside = match &self.request {
            None => return ask(Attempt::Connect),
            Some(request) if request.tls => {
                let connect = ask(Attempt::Connect);
                let passes = connect.would.unwrap_or(connect.verdict) == Verdict::Allow;
                if !passes || connect.inspect != Inspect::Yes {
                    return connect;
                }
                request
            }
            Some(request) => request,
        };
        let deed = inside.deed(policy, &self.target);
        ask(Attempt::Request {
            method: &inside.method,
            path: &inside.path,
            upgrade: false,
            tls: inside.tls,
            deed: Some(&deed),
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
        let (method, path, says) = match (method, fact) {
            (Some("PUSH"), Some(reference)) => {
                let whole = match reference.strip_prefix("refs/") {
                    Some(_) => reference.to_owned(),
                    None => format!("refs/heads/{reference}"),
                };
                (
                    "POST",
                    below("/git-receive-pack")?,
                    Says::Push(whole.into()),
                )
            }
            (Some("PUSH"), None) => return Err("a push needs a ref behind the URL".into()),
            (Some("TOOL"), Some(tool)) => ("POST", path, Says::Tool(tool.into())),
            (Some("TOOL"), None) => return Err("a tool needs its name behind the URL".into()),
            (Some("CLONE"), _) => {
                let path = below("/info/refs?service=git-upload-pack")?;
                ("GET", path, Says::Nothing)
            }
            (method, _) => (method.unwrap_or("GET"), path, Says::Nothing),
        };
        Ok(Self {
            tls,
            method: method.to_owned(),
            path,
            says,
        })
    }

    /// What its head tells, and what is said of its body.
    fn deed(&self, policy: &Policy, target: &Target) -> Deed {
        let mut deed = policy.read(target, &self.method, &self.path);
        match &self.says {
            Says::Nothing => return deed,
            Says::Push(reference) => {
                deed.action = Some(Action::Write);
                deed.reference = Some(reference.clone());
            }
            Says::Tool(tool) => {
                let call = deed.mcp.get_or_insert_default();
                call.method = Some("tools/call".into());
                call.tool = Some(tool.clone());
                deed.action = Some(Action::Call);
            }
        }
        (deed.seen, deed.body) = (Seen::Whole, None);
        deed
    }
}
