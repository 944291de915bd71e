//! `tidegate approve`: reviewers examine requests for approval and settle them.

mod watch;

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::config::{self, AdminAddress};

use super::{Answer, admin, load, print};

use watch::Watch;

/// Requests for approval, which the policy requires for some flows.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Approve {
    /// List the requests that wait for a reviewer.
    List(List),
    /// Show one request: the caller, the destination, the tool call, the number of attempts.
    Show(Show),
    /// Allow a request for a while.
    Allow(Allow),
    /// Deny a request.
    Deny(Deny),
    /// Ask here, at a terminal, about each request that waits.
    Watch(Watch),
    /// Revoke an approval: it ends at once, and so do the flows that it allowed.
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Include requests that were settled recently or timed out.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// The request, or at least 8 characters of the end of its id.
    id: String,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
pub(super) struct Allow {
    /// The request, or at least 8 characters of the end of its id.
    id: String,
    /// The duration: `once`, `session`, or a time such as 1h; at most `longest-approval` of the
    /// tier.
    #[arg(long = "for", value_name = "SCOPE")]
    scope: String,
    #[command(flatten)]
    note: Note,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
pub(super) struct Deny {
    /// The request, or at least 8 characters of the end of its id.
    id: String,
    #[command(flatten)]
    note: Note,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    /// The request, or at least 8 characters of the end of its id.
    id: String,
    #[command(flatten)]
    note: Note,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, clap::Args)]
struct Note {
    /// The reason, for the record.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

/// The address of the gate.
#[derive(Debug, clap::Args)]
struct At {
    /// The control socket: unix:PATH [default: that of the configuration].
    #[arg(long, env = "TIDEGATE_CONTROL", value_name = "ADDRESS")]
    #[arg(value_parser = admin::parse_address)]
    control: Option<AdminAddress>,
    /// The configuration of the gate [default: `$TIDEGATE_CONFIG`, /etc/tidegate/tidegate.toml,
    /// ~/.config/tidegate/tidegate.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The user that the gate runs as, by name or number, beside this user and root: a token goes to
    /// no other user's process.
    #[arg(long, env = "TIDEGATE_GATE_USER", value_name = "USER")]
    gate_user: Option<String>,
    /// An issuer's token that identifies the reviewer.
    #[arg(
        long,
        env = "TIDEGATE_REVIEWER_TOKEN",
        hide = true,
        hide_env_values = true
    )]
    token: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Why the command did nothing.
struct Failure(Answer, String);

impl Approve {
    pub(super) fn perform(self) -> Answer {
        let done = match &self {
            Self::List(list) => list.perform(),
            Self::Show(show) => show.perform(),
            Self::Allow(allow) => allow.perform(),
            Self::Deny(deny) => deny.at.settle(&deny.id, "deny", &deny.note, None),
            Self::Watch(watch) => watch.perform(),
            Self::Revoke(revoke) => revoke.at.settle(&revoke.id, "revoke", &revoke.note, None),
        };
        match done {
            Ok(()) => Answer::Yes,
            Err(Failure(answer, why)) => {
                print::err(&format!("tidegate: {why}\n"));
                answer
            }
        }
    }
}

impl List {
    fn perform(&self) -> Result<(), Failure> {
        let open = |request: &&Value| self.all || text(request, &["state"]) == "pending";
        let all = self.at.requests()?;
        let shown: Vec<&Value> = all.iter().filter(open).collect();
        if self.at.json {
            print::json(&json!({ "requests": shown }));
            return Ok(());
        }
        if shown.is_empty() {
            print::err("tidegate: no request waits\n");
        }
        for request in shown {
            print::out(&line(request));
        }
        Ok(())
    }
}

impl Show {
    fn perform(&self) -> Result<(), Failure> {
        let id = self.at.find(&self.id)?;
        let request = self.at.get(&format!("/v1/approvals/{id}"))?;
        if self.at.json {
            print::json(&request);
        } else {
            print::out(&whole(&request));
        }
        Ok(())
    }
}

impl Allow {
    fn perform(&self) -> Result<(), Failure> {
        let scope = Some(self.scope.as_str());
        self.at.settle(&self.id, "allow", &self.note, scope)
    }
}

impl At {
    fn settle(
        &self,
        id: &str,
        verb: &str,
        note: &Note,
        scope: Option<&str>,
    ) -> Result<(), Failure> {
        let id = self.find(id)?;
        let body = match scope {
            Some(scope) => json!({ "scope": scope, "note": note.note }),
            None => json!({ "note": note.note }),
        };
        let done = self.post(&format!("/v1/approvals/{id}/{verb}"), &body)?;
        if self.json {
            print::json(&done);
            return Ok(());
        }
        let until = text(&done, &["request", "settled", "until"]);
        let said = match text(&done, &["state"]) {
            "allowed" => format!("allowed until {until}"),
            "pending" => "allowed by you: a second reviewer has to allow it too".to_owned(),
            state => state.to_owned(),
        };
        print::out(&format!("{id}: {said}\n"));
        Ok(())
    }

    /// Returns the request whose id ends with these characters.
    fn find(&self, id: &str) -> Result<Uuid, Failure> {
        if let Ok(id) = id.parse() {
            return Ok(id);
        }
        if id.len() < 8 {
            let why = "write at least 8 characters of the end of the id";
            return Err(Failure(Answer::Wrong, why.to_owned()));
        }
        let all = self.requests()?;
        let ids = all.iter().map(|request| text(request, &["id"]));
        let found: Vec<&str> = ids.filter(|it| it.ends_with(id)).collect();
        match found.as_slice() {
            [only] => only
                .parse()
                .map_err(|_| Failure(Answer::Failed, "the gate's answer is malformed".to_owned())),
            [] => Err(Failure(
                Answer::No,
                format!("no request ends in {}", print::clean(id, 40)),
            )),
            _ => Err(Failure(
                Answer::Wrong,
                "several requests end so: write more of the id".to_owned(),
            )),
        }
    }

    fn requests(&self) -> Result<Vec<Value>, Failure> {
        let answer = self.get("/v1/approvals")?;
        let requests = answer.get("requests").and_then(Value::as_array);
        Ok(requests.cloned().unwrap_or_default())
    }

    fn get(&self, path: &str) -> Result<Value, Failure> {
        let address = self.address()?;
        answer(&address, admin::get(&address, path, self.bearer()))
    }

    fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, Failure> {
        let address = self.address()?;
        let said = admin::post(&address, path, self.bearer(), body, admin::PATIENCE);
        answer(&address, said)
    }

    fn bearer(&self) -> Option<admin::Bearer<'_>> {
        let token = self.token.as_deref().filter(|token| !token.is_empty())?;
        Some(admin::Bearer {
            token,
            recipient: admin::Recipient::Gate(self.gate_user.as_deref()),
        })
    }

    fn address(&self) -> Result<AdminAddress, Failure> {
        if let Some(address) = &self.control {
            return Ok(address.clone());
        }
        let discovered = load::find(self.config.as_deref(), true);
        let loaded = match discovered.path() {
            Some(path) => config::load(path).0,
            None => Some(config::embedded()),
        };
        let control = loaded.and_then(|config| config.listen.control);
        let found = control.map(|control| AdminAddress::Unix(control.path));
        found.ok_or_else(|| {
            let why = "no control socket is known: name it with --control unix:PATH";
            Failure(Answer::Wrong, why.to_owned())
        })
    }
}

fn answer(address: &AdminAddress, said: std::io::Result<(u16, String)>) -> Result<Value, Failure> {
    let place = admin::show_address(address);
    let (status, body) = said.map_err(|error| {
        Failure(
            Answer::Failed,
            format!("no gate answers at {place}: {error}"),
        )
    })?;
    let document: Value = serde_json::from_str(&body).unwrap_or_default();
    if status == 200 {
        return Ok(document);
    }
    let detail = document.get("detail").and_then(Value::as_str);
    let detail = print::clean(detail.unwrap_or(body.trim()), 200);
    let kind = match status {
        403 | 404 | 409 => Answer::No,
        400..500 => Answer::Wrong,
        _ => Answer::Failed,
    };
    Err(Failure(kind, detail))
}

/// Returns a text in a document; empty if there is none.
fn text<'v>(value: &'v Value, path: &[&str]) -> &'v str {
    let found = path.iter().try_fold(value, |value, key| value.get(key));
    found.and_then(Value::as_str).unwrap_or_default()
}

fn shown(request: &Value, path: &[&str], max: usize) -> String {
    print::clean(text(request, path), max)
}

/// Formats one request on one line.
fn line(request: &Value) -> String {
    let count = request
        .get("count")
        .and_then(Value::as_u64)
        .unwrap_or_default();
    let line = format!(
        "{}  {}  {}  {}:{}  tier {}  x{count}",
        text(request, &["id"]),
        text(request, &["state"]),
        shown(request, &["untrusted", "operation"], 24),
        text(request, &["host"]),
        request
            .get("port")
            .and_then(Value::as_u64)
            .unwrap_or_default(),
        shown(request, &["tier"], 20),
    );
    print::cut(&line, print::WIDTH) + "\n"
}

/// Formats a whole request, for the reviewer who decides.
fn whole(request: &Value) -> String {
    let mut all = String::new();
    let mut row = |name: &str, value: String| {
        if !value.trim().is_empty() {
            let _ = writeln!(all, "{name:<11}{}", print::cut(&value, 86));
        }
    };
    let get = |path: &[&str]| shown(request, path, 200);
    let number = |key: &str| request.get(key).and_then(Value::as_u64).unwrap_or_default();
    row("request", format!("{} ({})", get(&["id"]), get(&["state"])));
    row(
        "to",
        format!(
            "{}:{} (category {})",
            get(&["host"]),
            number("port"),
            get(&["category"])
        ),
    );
    row(
        "caller",
        format!(
            "{} {} (session {})",
            get(&["caller", "bound_by"]),
            get(&["caller", "bound_to"]),
            get(&["caller", "trust"]),
        ),
    );
    row("user", get(&["caller", "user"]));
    let repository = get(&["repository", "name"]);
    if !repository.is_empty() {
        row(
            "repository",
            format!("{repository} ({})", get(&["repository", "trust"])),
        );
    }
    row(
        "asked by",
        format!(
            "{} of tier {}  {}",
            get(&["rule"]),
            get(&["tier"]),
            get(&["rule_location"])
        ),
    );
    let call = get(&["call", "id"]);
    if !call.is_empty() {
        row("call", format!("{call} ({})", get(&["call", "trust"])));
    }
    row(
        "attempts",
        format!(
            "{}, first {}, last {}",
            number("count"),
            get(&["first"]),
            get(&["last"])
        ),
    );
    let allowed_by = request.get("allowed_by").and_then(Value::as_array);
    let allowed_by = allowed_by.into_iter().flatten().filter_map(Value::as_str);
    let allowed_by: Vec<String> = allowed_by.map(|name| print::clean(name, 80)).collect();
    row("allowed by", allowed_by.join(", "));
    row("times out", get(&["expires"]));
    row("settled", get(&["settled", "until"]));
    all.push_str("written by the agent or by others, not verified:\n");
    for key in ["operation", "tool", "command", "branch", "reason"] {
        let value = get(&["untrusted", key]);
        if !value.is_empty() {
            let _ = writeln!(all, "  {key:<11}{}", print::cut(&value, 84));
        }
    }
    if text(request, &["state"]) == "pending" {
        let id = text(request, &["id"]);
        let _ = writeln!(
            all,
            "tidegate approve allow {id} --for 1h\ntidegate approve deny {id}"
        );
    }
    all
}
