//! Checks whether the user who runs this can change the policy: then the policy is only advice.

use rustix::fs::{Access, access};
use rustix::process::geteuid;

use crate::app::{Loaded, WALLS};
use crate::cli::admin;
use crate::config::Config;

use super::report::Item;

/// The metric of a running gate.
const METRIC: &str = "tidegate_policy_advisory ";

/// Checks whether this user can write the policy's file, and reads the gate's own metric.
pub(super) fn look(loaded: &Loaded) -> Item {
    const SUBJECT: &str = "standing";
    let config = loaded.config.as_ref();
    let walls = WALLS
        .map(|(what, command)| format!("{what}: {command}"))
        .join("; ");
    if let Some(path) = config.and_then(writable) {
        let text = format!("advice only: this user can change {path}");
        return Item::unknown("policy", SUBJECT, text).fix(walls);
    }
    match config.and_then(seen_by_gate) {
        Some(true) => {
            let text = "advice only: callers of the gate's own user can change the policy";
            Item::unknown("policy", SUBJECT, text).fix(walls)
        }
        Some(false) => Item::fine(
            "policy",
            SUBJECT,
            "no caller of the gate's own user was seen",
        ),
        None => Item::unknown("policy", SUBJECT, "the gate cannot be reached from here"),
    }
}

/// Returns the policy's file if this user may write it. Skipped for root, who may write everything.
fn writable(config: &Config) -> Option<String> {
    let path = config.path.as_deref()?;
    let may = !geteuid().is_root() && access(path, Access::WRITE_OK).is_ok();
    may.then(|| path.display().to_string())
}

fn seen_by_gate(config: &Config) -> Option<bool> {
    let address = config.listen.admin.clone();
    let address = address.unwrap_or_else(admin::default_address);
    let (status, body) = admin::ask(&address, "/metrics").ok()?;
    let value = body.lines().find_map(|line| line.strip_prefix(METRIC))?;
    (status == 200).then(|| value.trim() != "0")
}
