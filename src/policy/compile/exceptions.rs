//! Compiles `[[exception]]` and grants of the ledger.

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use toml::Spanned;

use crate::diag::{Diagnostic, Source};
use crate::ledger::{self, Grant};
use crate::policy::compiled::Policy;
use crate::policy::exception::Exception;
use crate::policy::findings::Findings;
use crate::policy::source::{self, Placed, Size, Words};
use crate::policy::verdict::Named;

use super::rules::{Known, Reader};

/// Maximum length of a text of an exception, in bytes.
const MAX_TEXT: usize = 500;
/// Maximum length of an id, in bytes.
const MAX_ID: usize = 80;

/// Compiles `[[exception]]` tables, in the written order.
pub(super) fn compile(
    source: &source::Policy,
    known: &Known<'_>,
    findings: &mut Findings,
) -> Vec<Arc<Exception>> {
    let mut exceptions: Vec<Arc<Exception>> = Vec::new();
    for written in &source.exceptions {
        let id = &written.value.id;
        let twice = exceptions.iter().find(|it| it.grant.id == *id.get_ref());
        if let Some(first) = twice {
            let message = format!("exception `{}` is written twice", id.get_ref());
            findings.push(
                Diagnostic::error("exception-twice", written.at(id), message)
                    .label("again here")
                    .help(format!(
                        "choose another id: the first is at {}",
                        first.named.location
                    )),
            );
        }
        let grant = read(written, findings);
        exceptions.push(Arc::new(exception(written, grant, known, findings)));
    }
    exceptions
}

impl Policy {
    /// Compiles a granted exception. `location` is its location in records.
    ///
    /// # Errors
    ///
    /// If the grant is malformed or names tiers, groups or hosts outside of this policy.
    pub fn compile_grant(
        &self,
        grant: &Grant,
        location: &str,
    ) -> Result<Exception, Vec<Diagnostic>> {
        let known = Known {
            tiers: &self.tiers,
            callers: &self.callers,
            servers: &self.servers,
            routing: &self.routing,
        };
        let mut findings = Findings::default();
        let written = Placed {
            source: Arc::new(Source::new(location, "")),
            span: 0..0,
            value: source_of(grant),
        };
        check_texts(&written, &mut findings);
        let mut exception = exception(&written, grant.clone(), &known, &mut findings);
        exception.named = Arc::new(Named {
            name: grant.id.as_str().into(),
            location: location.into(),
        });
        if findings.has_errors() {
            return Err(findings.into_inner());
        }
        Ok(exception)
    }
}

/// Compiles an exception, with the conditions of an allow.
fn exception(
    written: &Placed<source::Exception>,
    grant: Grant,
    known: &Known<'_>,
    findings: &mut Findings,
) -> Exception {
    let value = &written.value;
    if value.to.hosts.is_empty() {
        let message = format!("exception `{}` names no host", value.id.get_ref());
        findings.push(
            Diagnostic::error("no-hosts", written.at(&value.id), message)
                .label("no `to.hosts`")
                .help(
                    "name the hosts that are meant, e.g. `to.hosts = [\"artifacts.example.net\"]`",
                ),
        );
    }
    let rule = Placed {
        source: written.source.clone(),
        span: written.span.clone(),
        value: rule_of(value),
    };
    let reader = Reader {
        rule: &rule,
        known,
        findings,
    };
    let compiled = reader.read();
    Exception {
        named: compiled.rule.named.clone(),
        grant,
        allowance: OnceLock::new(),
        rule: Arc::new(compiled.rule),
        hosts: compiled.hosts,
    }
}

/// Returns the allow with the conditions of an exception.
fn rule_of(value: &source::Exception) -> source::Rule {
    source::Rule {
        id: value.id.clone(),
        verdict: Spanned::new(value.id.span(), "allow".to_owned()),
        from: value.from.clone(),
        to: value.to.clone(),
        does: value.does.clone(),
        unless: source::Unless::default(),
        grant: source::Grant::default(),
        reason: Some(value.reason.clone()),
        allows: Vec::new(),
        denies: Vec::new(),
    }
}

/// Converts a written exception to a grant as in the ledger.
fn read(written: &Placed<source::Exception>, findings: &mut Findings) -> Grant {
    check_texts(written, findings);
    let value = &written.value;
    let text = |it: &Option<Spanned<String>>| it.as_ref().map(|it| it.get_ref().clone());
    let (from, does) = (&value.from, &value.does);
    Grant {
        id: value.id.get_ref().clone(),
        tool: text(&value.tool),
        reason: value.reason.get_ref().clone(),
        reviewer: texts(&value.reviewer.0),
        control: text(&value.control),
        expires: end(written, findings),
        policy_digest: String::new(),
        from: ledger::From {
            tiers: texts(&from.tiers),
            groups: texts(&from.groups),
            repositories: texts(&from.repositories),
            subjects: texts(&from.subjects),
            session: None,
        },
        to: ledger::To {
            hosts: texts(&value.to.hosts),
            categories: texts(&value.to.categories),
            ports: value
                .to
                .ports
                .iter()
                .filter_map(|port| u16::try_from(*port.get_ref()).ok())
                .collect(),
        },
        does: ledger::Does {
            actions: texts(&does.actions),
            operations: texts(&does.operations),
            repositories: texts(&does.repositories),
            refs: texts(&does.refs),
            methods: texts(&does.methods),
            paths: texts(&does.paths),
            servers: texts(&does.servers),
            tools: texts(&does.tools),
            mcp_methods: texts(&does.mcp_methods),
            packages: texts(&does.packages),
        },
        limit: limit(written, findings),
    }
}

/// Reads the expiry. A time without an offset is refused.
fn end(written: &Placed<source::Exception>, findings: &mut Findings) -> Timestamp {
    let expires = &written.value.expires;
    expires.get_ref().to_string().parse().unwrap_or_else(|_| {
        let message = format!("`{}` is not a point in time", expires.get_ref());
        findings.push(
            Diagnostic::error("bad-time", written.at(expires), message)
                .label("the date, the time and the offset are needed")
                .help("write e.g. `expires = 2026-12-01T18:00:00Z`"),
        );
        Timestamp::MIN
    })
}

fn limit(written: &Placed<source::Exception>, findings: &mut Findings) -> ledger::Limit {
    let limit = &written.value.limit;
    let bytes_out = limit.bytes_out.as_ref().map(|size| {
        let bytes = size.get_ref().bytes().filter(|bytes| *bytes > 0);
        bytes.unwrap_or_else(|| {
            let message = format!("`{}` is not a size", size.get_ref());
            findings.push(
                Diagnostic::error("bad-size", written.at(size), message)
                    .help("write a number and a unit, e.g. `50 MiB`"),
            );
            0
        })
    });
    let requests = limit.requests.as_ref().map(|count| {
        let number = u64::try_from(*count.get_ref()).ok().filter(|it| *it > 0);
        number.unwrap_or_else(|| {
            let message = format!("{} is out of range", count.get_ref());
            findings.push(
                Diagnostic::error("out-of-range", written.at(count), message)
                    .help("write a number of requests from 1 on"),
            );
            0
        })
    });
    ledger::Limit {
        bytes_out,
        requests,
    }
}

/// Checks the texts for people: one line each, with a maximum length.
fn check_texts(written: &Placed<source::Exception>, findings: &mut Findings) {
    let value = &written.value;
    let optional = value.tool.iter().chain(&value.control);
    let reviewers = value.reviewer.0.iter();
    let all = [&value.id, &value.reason].into_iter();
    for text in all.chain(optional).chain(reviewers) {
        let is_sound = |text: &str| {
            !text.trim().is_empty() && text.len() <= MAX_TEXT && !text.contains(char::is_control)
        };
        if !is_sound(text.get_ref()) {
            findings.push(
                Diagnostic::error(
                    "bad-text",
                    written.at(text),
                    "a text of an exception is not one line",
                )
                .help(format!("write one line of 1 to {MAX_TEXT} bytes")),
            );
        }
    }
    let id = value.id.get_ref();
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || "-_.:".contains(letter);
    if id.len() > MAX_ID || !id.chars().all(is_word) {
        let message = format!("`{id}` is not an id of an exception");
        findings.push(
            Diagnostic::error("bad-id", written.at(&value.id), message).help(format!(
                "write up to {MAX_ID} letters, digits and `-_.:`, e.g. EXC-2026-114"
            )),
        );
    }
    if value.reviewer.0.is_empty() {
        let id = &value.id;
        let message = format!("exception `{}` has no reviewer", id.get_ref());
        findings.push(
            Diagnostic::error("no-reviewer", written.at(id), message)
                .help("name who takes responsibility, e.g. `reviewer = \"sec@acme.example\"`"),
        );
    }
}

fn texts(all: &[Spanned<String>]) -> Vec<String> {
    all.iter().map(|text| text.get_ref().clone()).collect()
}

/// Converts a grant to an `[[exception]]` as in a file.
fn source_of(grant: &Grant) -> source::Exception {
    let one = |text: &String| Spanned::new(0..0, text.clone());
    let all = |texts: &[String]| texts.iter().map(one).collect::<Vec<_>>();
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let Grant {
        from,
        to,
        does,
        limit,
        ..
    } = grant;
    let expires = grant.expires.to_string().parse();
    let epoch = toml::value::Datetime {
        date: None,
        time: None,
        offset: None,
    };
    source::Exception {
        id: one(&grant.id),
        from: source::From {
            tiers: all(&from.tiers),
            groups: all(&from.groups),
            repositories: all(&from.repositories),
            subjects: all(&from.subjects),
        },
        to: source::To {
            hosts: all(&to.hosts),
            categories: all(&to.categories),
            ports: to
                .ports
                .iter()
                .map(|port| Spanned::new(0..0, i64::from(*port)))
                .collect(),
        },
        does: source::Does {
            actions: all(&does.actions),
            operations: all(&does.operations),
            repositories: all(&does.repositories),
            refs: all(&does.refs),
            methods: all(&does.methods),
            paths: all(&does.paths),
            servers: all(&does.servers),
            tools: all(&does.tools),
            mcp_methods: all(&does.mcp_methods),
            packages: all(&does.packages),
        },
        tool: grant.tool.as_ref().map(one),
        reason: one(&grant.reason),
        reviewer: Words(all(&grant.reviewer)),
        control: grant.control.as_ref().map(one),
        limit: source::Limit {
            bytes_out: limit
                .bytes_out
                .map(|bytes| Spanned::new(0..0, Size::Bytes(number(bytes)))),
            requests: limit.requests.map(|it| Spanned::new(0..0, number(it))),
        },
        expires: Spanned::new(0..0, expires.unwrap_or(epoch)),
    }
}
