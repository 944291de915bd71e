//! `tidegate exception grant|revoke` and `tidegate exceptions`.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::config::{self, AdminAddress};

use super::{Answer, admin, print};

/// The period of `--expiring`: exceptions that end within a week.
const SOON: SignedDuration = SignedDuration::from_hours(24 * 7);

#[derive(Debug, clap::Subcommand)]
pub(super) enum Exception {
    /// Grant an exception at a running gate. It is in force at once, and ends by itself.
    Grant(Box<Grant>),
    /// End a granted exception. The gate closes the open flows that only this exception allows.
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
pub(super) struct Grant {
    /// A host: a name, `*.suffix`, an address or a network. May be repeated.
    #[arg(long, value_name = "HOST", required = true)]
    host: Vec<String>,
    /// A port [default: those of the destination, or 443, and 80 for plain HTTP].
    #[arg(long, value_name = "PORT")]
    port: Vec<u16>,
    /// How long the exception is in force, e.g. 1h.
    #[arg(long = "for", value_name = "DURATION", required = true)]
    lasting: SignedDuration,
    /// The reason, for records and reviewers.
    #[arg(long, value_name = "TEXT", required = true)]
    reason: String,
    /// Its name in records [default: a new one].
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Only for callers in this tier.
    #[arg(long, value_name = "TIER")]
    tier: Vec<String>,
    /// Only for members of this group.
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// Only for callers whose evidence shows this repository.
    #[arg(long, value_name = "REPOSITORY")]
    repository: Vec<String>,
    /// Only for this user.
    #[arg(long, value_name = "USER")]
    subject: Vec<String>,
    /// Only for requests with this method, which are seen in plain HTTP and where TLS is inspected.
    #[arg(long, value_name = "METHOD")]
    method: Vec<String>,
    /// Only for requests with this path.
    #[arg(long, value_name = "PATH")]
    path: Vec<String>,
    /// The command that the exception is for; not enforced.
    #[arg(long, value_name = "TEXT")]
    tool: Option<String>,
    /// The compensating control, in words.
    #[arg(long, value_name = "TEXT")]
    watched_by: Option<String>,
    /// Bytes that may go to the destination.
    #[arg(long, value_name = "BYTES")]
    bytes_out: Option<u64>,
    /// Flows that may pass.
    #[arg(long, value_name = "NUMBER")]
    requests: Option<u64>,
    #[command(flatten)]
    door: Door,
}

#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    /// The id of the exception.
    id: String,
    /// The reason, for records and reviewers.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    door: Door,
}

#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one for each option, as clap has them"
)]
pub(super) struct List {
    /// Only those that end within a week.
    #[arg(long, group = "which")]
    expiring: bool,
    /// Only those that have ended.
    #[arg(long, group = "which")]
    expired: bool,
    /// Only those that let nothing pass since the gate started.
    #[arg(long, group = "which")]
    unused: bool,
    /// Show for each that ended whether its hosts are denied again, and which rule replaced it where
    /// they are not (exit code 1).
    #[arg(long, group = "which")]
    retest: bool,
    /// Write JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    door: Door,
}

/// Returns the value of a key; null if there is no such key.
fn at<'v>(value: &'v Value, key: &str) -> &'v Value {
    value.get(key).unwrap_or(&Value::Null)
}

/// The control socket of the gate.
#[derive(Debug, clap::Args)]
struct Door {
    /// The control socket: unix:PATH [default: where a gate without configuration has it].
    #[arg(long, env = "TIDEGATE_CONTROL", value_name = "ADDRESS")]
    #[arg(value_parser = admin::parse_address)]
    control: Option<AdminAddress>,
}

impl Exception {
    pub(super) fn perform(&self) -> Answer {
        match self {
            Self::Grant(grant) => grant.perform(),
            Self::Revoke(revoke) => revoke.perform(),
        }
    }
}

impl Grant {
    fn perform(&self) -> Answer {
        let Ok(expires) = Clock::system().now().checked_add(self.lasting) else {
            print::err("tidegate: --for: write a duration, e.g. 1h\n");
            return Answer::Wrong;
        };
        let body = json!({
            "id": self.id,
            "tool": self.tool,
            "reason": self.reason,
            "control": self.watched_by,
            "expires": expires,
            "from": {
                "tiers": self.tier,
                "groups": self.group,
                "repositories": self.repository,
                "subjects": self.subject,
            },
            "to": { "hosts": self.host, "ports": self.port },
            "does": { "methods": self.method, "paths": self.path },
            "limit": { "bytes-out": self.bytes_out, "requests": self.requests },
        });
        let granted = match self.door.post("/v1/exceptions", &body) {
            Ok(granted) => granted,
            Err(answer) => return answer,
        };
        let text = |key: &str| print::clean(at(&granted, key).as_str().unwrap_or_default(), 80);
        print::out(&format!("{}\n", text("id")));
        print::err(&format!(
            "tidegate: exception {} holds until {}; `tidegate exception revoke {}` ends it\n",
            text("id"),
            text("expires"),
            text("id")
        ));
        if let Some(rule) = at(&granted, "rule").as_str() {
            let times = at(&granted, "repeats").as_u64().unwrap_or_default();
            print::err(&format!(
                "tidegate: the same was granted {times} times within 30 days: make it a rule\n\n{rule}"
            ));
        }
        Answer::Yes
    }
}

impl Revoke {
    fn perform(&self) -> Answer {
        let body = json!({ "id": self.id, "reason": self.reason });
        match self.door.post("/v1/exceptions/revoke", &body) {
            Ok(_) => Answer::Yes,
            Err(answer) => answer,
        }
    }
}

impl List {
    pub(super) fn perform(&self) -> Answer {
        let listed = match self.door.get("/v1/exceptions") {
            Ok(listed) => listed,
            Err(answer) => return answer,
        };
        let all = at(&listed, "exceptions")
            .as_array()
            .cloned()
            .unwrap_or_default();
        let now: Option<Timestamp> = at(&listed, "now").as_str().and_then(|it| it.parse().ok());
        let shown: Vec<Value> = all.into_iter().filter(|it| self.shows(it, now)).collect();
        let replaced = shown.iter().any(|it| !is_denied_again(it));
        if self.json {
            print::json(&shown);
        } else {
            print::out(&self.text(&shown));
        }
        Answer::whether(!(self.retest && replaced))
    }

    fn shows(&self, exception: &Value, now: Option<Timestamp>) -> bool {
        let state = exception["state"].as_str().unwrap_or_default();
        let has_ended = matches!(state, "expired" | "revoked");
        let end = at(at(exception, "grant"), "expires").as_str();
        let end: Option<Timestamp> = end.and_then(|end| end.parse().ok());
        if self.expiring {
            let left = end.zip(now).map(|(end, now)| end.duration_since(now));
            return !has_ended && left.is_some_and(|left| left <= SOON);
        }
        if self.unused {
            // Of an approval only the flow that used it up is counted.
            let is_counted = at(exception, "is_approval").as_bool() != Some(true);
            return !has_ended && is_counted && exception["used"].as_u64() == Some(0);
        }
        !(self.expired || self.retest) || has_ended
    }

    fn text(&self, shown: &[Value]) -> String {
        if shown.is_empty() {
            return "no such exception\n".to_owned();
        }
        let mut text = String::new();
        for exception in shown {
            let grant = &exception["grant"];
            let word = |value: &Value, max| print::clean(value.as_str().unwrap_or_default(), max);
            let hosts = at(at(grant, "to"), "hosts")
                .as_array()
                .cloned()
                .unwrap_or_default();
            let hosts: Vec<String> = hosts.iter().map(|host| word(host, 60)).collect();
            let _ = writeln!(
                text,
                "{:12}  {:20}  until {:20}  {}",
                word(&exception["state"], 12),
                word(&grant["id"], 48),
                word(&grant["expires"], 20),
                print::cut(&hosts.join(" "), 30),
            );
            let _ = writeln!(
                text,
                "              {}: {}",
                word(&exception["location"], 40),
                word(&grant["reason"], 50)
            );
            if let Some(why) = exception["why"].as_str() {
                let _ = writeln!(text, "              {}", print::clean(why, 600));
            }
            if self.retest {
                retested(exception, &mut text);
            }
        }
        text
    }
}

fn retested(exception: &Value, text: &mut String) {
    for now in exception["now"].as_array().into_iter().flatten() {
        let word = |key: &str| print::clean(now[key].as_str().unwrap_or_default(), 60);
        let target = word("target");
        let _ = match word("verdict").as_str() {
            "allow" => writeln!(
                text,
                "              {target}: still allowed, by {} ({})",
                word("rule"),
                word("location")
            ),
            "ask" => writeln!(text, "              {target}: needs approval again"),
            _ => writeln!(
                text,
                "              {target}: denied again, by {}",
                word("rule")
            ),
        };
    }
}

fn is_denied_again(exception: &Value) -> bool {
    let mut now = exception["now"].as_array().into_iter().flatten();
    now.all(|it| it["verdict"] != "allow")
}

impl Door {
    fn address(&self) -> Result<AdminAddress, Answer> {
        let usual = || config::embedded().listen.control;
        let found = self
            .control
            .clone()
            .or_else(|| usual().map(|control| AdminAddress::Unix(control.path)));
        found.ok_or_else(|| {
            print::err("tidegate: no control socket is known: name it with --control unix:PATH\n");
            Answer::Wrong
        })
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, Answer> {
        let address = self.address()?;
        let patience = admin::PATIENCE * 5;
        understood(&address, admin::post(&address, path, None, body, patience))
    }

    fn get(&self, path: &str) -> Result<Value, Answer> {
        let address = self.address()?;
        understood(&address, admin::ask(&address, path))
    }
}

/// Returns the document that a gate answered, or the message of a refusal.
fn understood(
    address: &AdminAddress,
    answered: std::io::Result<(u16, String)>,
) -> Result<Value, Answer> {
    let place = admin::show_address(address);
    let (status, body) = answered.map_err(|error| {
        print::err(&format!("tidegate: no gate answers at {place}: {error}\n"));
        Answer::Failed
    })?;
    let document: Value = serde_json::from_str(&body).unwrap_or_default();
    if (200..300).contains(&status) {
        return Ok(document);
    }
    let detail = at(&document, "detail").as_str().unwrap_or(body.trim());
    let detail = print::clean(detail, 600);
    print::err(&format!("tidegate: {place} says {status}: {detail}\n"));
    Err(match status {
        400..500 => Answer::Wrong,
        _ => Answer::Failed,
    })
}
