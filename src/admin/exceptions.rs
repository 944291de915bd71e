//! `/v1/exceptions`: granting, revoking and listing exceptions, at the control socket.
//!
//! The mode of the control socket lets in its owner, who runs the gate, and root. The user of the
//! process at the other end is compared once more, and stands in the ledger as the principal. An
//! agent that runs as the user of the gate is that principal too: there an exception is as much
//! advice as the policy.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::{SignedDuration, Timestamp};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::config::time_in_words;
use crate::gate::{ExceptionReport, Gate, Snapshot};
use crate::ledger::{Actor, Change, Does, From, Grant, Ledger, Limit, To};
use crate::policy::Exception;
use crate::record::Asker;

use super::Door;
use super::body::Calls;
use super::sessions::Refused;

/// Bytes of a call.
const MAX_BODY: usize = 64 * 1024;
/// Repetitions within [`REPEAT_WINDOW`] from which a rule is due.
const MAX_REPEATS: usize = 3;
/// The time in which repetitions count.
const REPEAT_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 30);

/// The routes below `/v1/exceptions`.
pub(super) fn routes(gate: &Arc<Gate>) -> Router {
    let calls = Calls::new(gate, MAX_BODY);
    Router::new()
        .route("/v1/exceptions", get(list).post(grant))
        .route("/v1/exceptions/revoke", post(revoke))
        .layer(from_fn(move |request, next| {
            calls.clone().run(request, next)
        }))
        .with_state(gate.clone())
}

/// An exception that is asked for. The gate adds the reviewer: the principal that asks.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Asked {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    tool: Option<String>,
    reason: String,
    #[serde(default)]
    control: Option<String>,
    expires: Timestamp,
    #[serde(default)]
    from: From,
    to: To,
    #[serde(default)]
    does: Does,
    #[serde(default)]
    limit: Limit,
}

async fn grant(
    State(gate): State<Arc<Gate>>,
    Extension(door): Extension<Door>,
    Extension(asker): Extension<Asker>,
    Json(wanted): Json<Asked>,
) -> Result<Response, Refused> {
    let (ledger, actor) = authorized(&gate, door, &asker)?;
    let (checking, by) = (gate.clone(), actor.clone());
    // The proof takes time, and the other calls of this thread would wait for it.
    let checked = tokio::task::spawn_blocking(move || granted(&checking, wanted, &by)).await;
    let grant = checked.unwrap_or_else(|_| Err(wrong("it could not be checked".to_owned())))?;
    let change = |_: &_| {
        let grant = Box::new(grant.clone());
        Ok(Change::ExceptionGranted { grant })
    };
    let entry = ledger
        .append(&actor, change)
        .await
        .map_err(|error| Refused::from(&error))?;
    gate.refresh();
    let repeats = repeats(&ledger, &grant, gate.clock.now());
    let rule = (repeats >= MAX_REPEATS).then(|| rule_of(&grant)).flatten();
    let answer = json!({
        "id": grant.id,
        "revision": entry.revision,
        "expires": grant.expires,
        "reviewer": grant.reviewer,
        "repeats": repeats,
        "rule": rule,
    });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// The whole exception, where it may be granted.
fn granted(gate: &Gate, asked: Asked, actor: &Actor) -> Result<Grant, Refused> {
    let snapshot = gate.snapshot.load();
    let now = gate.clock.now();
    let max = SignedDuration::try_from(snapshot.max_exception).unwrap_or(SignedDuration::MAX);
    let left = asked.expires.duration_since(now);
    if !left.is_positive() || left > max {
        return Err(wrong(format!(
            "`expires` is {}: it has to be in the future, and at most {} from now \
             (`[exceptions] longest`)",
            asked.expires,
            time_in_words(max)
        )));
    }
    let new_id = || format!("exc-{}", uuid::Uuid::now_v7().simple());
    let id = asked.id.unwrap_or_else(new_id);
    let grant = Grant {
        id,
        tool: asked.tool,
        reason: asked.reason,
        reviewer: vec![actor.principal.clone()],
        control: asked.control,
        expires: asked.expires,
        policy_digest: snapshot.digest.to_string(),
        from: asked.from,
        to: asked.to,
        does: asked.does,
        limit: asked.limit,
    };
    let written = snapshot.policy.exceptions().iter();
    if written.clone().any(|it| it.grant.id == grant.id) {
        let why = format!(
            "exception `{}` stands in the files: choose another id",
            grant.id
        );
        return Err(wrong(why));
    }
    match snapshot.policy.compile_grant(&grant, "request") {
        Ok(exception) => {
            may_stand(&snapshot, exception)?;
            Ok(grant)
        }
        Err(findings) => {
            let first = findings.first();
            let help = first.and_then(|it| it.help.clone()).unwrap_or_default();
            let message = first.map(|it| it.message.clone()).unwrap_or_default();
            Err(wrong(format!("{message}: {help}")))
        }
    }
}

/// Refuses an exception that lets pass what an invariant of the policy forbids.
fn may_stand(snapshot: &Snapshot, exception: Exception) -> Result<(), Refused> {
    let in_force: Vec<Arc<Exception>> = snapshot.exceptions.load().iter().cloned().collect();
    let forbidden = snapshot.policy.forbidden(&in_force, &[Arc::new(exception)]);
    let why = match forbidden.as_deref() {
        Ok([]) => return Ok(()),
        Ok([first, ..]) => first.to_string(),
        Err(error) => format!("cannot prove that no invariant forbids it: {error}"),
    };
    Err(Refused::new(StatusCode::CONFLICT, "forbidden", why))
}

fn wrong(why: String) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, "bad_request", why)
}

/// What is revoked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    id: String,
    #[serde(default)]
    reason: String,
}

async fn revoke(
    State(gate): State<Arc<Gate>>,
    Extension(door): Extension<Door>,
    Extension(asker): Extension<Asker>,
    Json(revoke): Json<Revoke>,
) -> Result<Response, Refused> {
    let (ledger, actor) = authorized(&gate, door, &asker)?;
    let snapshot = gate.snapshot.load_full();
    let mut written = snapshot.policy.exceptions().iter();
    if let Some(written) = written.find(|it| it.grant.id == revoke.id) {
        let why = format!(
            "exception `{}` stands in {}: take it out there",
            revoke.id, written.named.location
        );
        return Err(Refused::new(StatusCode::CONFLICT, "in_file", why));
    }
    let change = |_: &_| {
        Ok(Change::ExceptionRevoked {
            id: revoke.id.clone(),
            reason: revoke.reason.clone(),
        })
    };
    let entry = ledger
        .append(&actor, change)
        .await
        .map_err(|error| Refused::from(&error))?;
    gate.refresh();
    Ok(Json(json!({ "id": revoke.id, "revision": entry.revision })).into_response())
}

async fn list(
    State(gate): State<Arc<Gate>>,
    Extension(door): Extension<Door>,
    Extension(asker): Extension<Asker>,
) -> Result<Response, Refused> {
    principal(door, &asker)?;
    let reports: Vec<ExceptionReport> = gate.exception_reports();
    let answer = json!({ "now": gate.clock.now(), "exceptions": reports });
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

/// The ledger, and the principal that changes it.
fn authorized(gate: &Gate, door: Door, asker: &Asker) -> Result<(Arc<Ledger>, Actor), Refused> {
    let principal = principal(door, asker)?;
    let Some(ledger) = gate.exceptions.ledger.clone() else {
        let why = "this gate has no ledger: write `[ledger]` in its configuration and restart it";
        return Err(Refused::new(StatusCode::CONFLICT, "no_ledger", why));
    };
    let actor = ledger.actor(principal, door.as_str());
    Ok((ledger, actor))
}

/// Who asks: root, or the user that runs the gate.
fn principal(door: Door, asker: &Asker) -> Result<String, Refused> {
    let refused = |why: &str| Refused::new(StatusCode::FORBIDDEN, "control_only", why);
    if door != Door::Control {
        return Err(refused(
            "exceptions are granted and listed at the control socket only",
        ));
    }
    match asker.uid {
        Some(uid) if uid == 0 || uid == geteuid().as_raw() => Ok(format!("uid:{uid}")),
        _ => Err(refused(
            "only root and the user of the gate grant exceptions",
        )),
    }
}

/// How often the same was granted lately, this time included.
fn repeats(ledger: &Ledger, grant: &Grant, now: Timestamp) -> usize {
    let state = ledger.state();
    let same = |other: &Grant| other.to == grant.to && other.does == grant.does;
    let granted = state.granted.values();
    granted
        .filter(|it| now.duration_since(it.at) <= REPEAT_WINDOW && same(&it.grant))
        .count()
}

/// A rule that allows for good what an exception allows for a time, and a trial of the rule. `None`
/// for an exception of one session: a rule names no session.
fn rule_of(grant: &Grant) -> Option<String> {
    if grant.from.session.is_some() {
        return None;
    }
    let (from, to, does) = (
        keys("from", &grant.from)?,
        keys("to", &grant.to)?,
        keys("does", &grant.does)?,
    );
    let text = |text: &str| toml::Value::from(text).to_string();
    let mut rule = format!(
        "[[rule]]\nid = {}\nverdict = \"allow\"\n{from}{to}{does}reason = {}\n",
        text(&format!("{}-rule", grant.id)),
        text(&grant.reason),
    );
    let mut hosts = grant.to.hosts.iter();
    let exact = hosts.find(|host| !host.contains(['*', '/']));
    if let Some(host) = exact.filter(|_| grant.does == Does::default()) {
        let port = grant.to.ports.first().copied().unwrap_or(443);
        let name = text(&format!("{host} can be reached"));
        let target = text(&format!("{host}:{port}"));
        let trial = format!("\n[[trial]]\nname = {name}\n{from}allows = [{target}]\n");
        rule.push_str(&trial);
    }
    Some(rule)
}

/// The conditions of a part of an exception as lines of TOML: `from.tiers = ["standard"]`.
fn keys(part: &str, conditions: &impl Serialize) -> Option<String> {
    let table = toml::Table::try_from(conditions).ok()?;
    let line = |(key, value): (String, toml::Value)| format!("{part}.{key} = {value}\n");
    Some(table.into_iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(more: &serde_json::Value) -> Grant {
        let mut grant = json!({
            "id": "EXC-1", "reason": "a \u{1b} \"word\"", "reviewer": ["uid:0"],
            "expires": "2026-12-01T18:00:00Z", "to": { "hosts": ["mcp.example.net"] },
        });
        for (key, value) in more.as_object().expect("an object") {
            grant[key] = value.clone();
        }
        serde_json::from_value(grant).expect("a grant")
    }

    #[test]
    fn the_rule_that_is_suggested_has_each_condition_of_the_exception() {
        let narrow = grant(&json!({
            "from": { "tiers": ["standard"] },
            "does": { "servers": ["files"], "tools": ["read_file"], "mcp-methods": ["tools/call"] },
        }));
        let written: toml::Table = rule_of(&narrow).expect("a rule").parse().expect("TOML");
        let rule = &written["rule"][0];
        assert_eq!(
            rule["does"],
            toml::Value::try_from(&narrow.does).expect("does")
        );
        assert_eq!(
            rule["from"],
            toml::Value::try_from(&narrow.from).expect("from")
        );
        assert_eq!(rule["to"], toml::Value::try_from(&narrow.to).expect("to"));
        assert_eq!(rule["reason"].as_str(), Some(&*narrow.reason));
        assert!(!written.contains_key("trial"), "{written}");

        let wide: toml::Table = rule_of(&grant(&json!({})))
            .expect("a rule")
            .parse()
            .expect("TOML");
        assert_eq!(
            wide["trial"][0]["allows"][0].as_str(),
            Some("mcp.example.net:443")
        );
        let of_session = json!({ "from": { "session": { "id": "s-1", "verified": true } } });
        assert_eq!(rule_of(&grant(&of_session)), None);
    }
}
