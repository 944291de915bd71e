//! The report on refusals that an agent receives.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::identity::Refused as RefusedFlow;

/// Refusals listed in one answer.
const MAX_LISTED: usize = 16;
/// Commands named in one answer.
const MAX_COMMANDS: usize = 3;

/// The instructions for the agent if the policy asks people.
const HOW_TO_ASK: &str = "What is refused with needs_approval waits for a person: \
    `tidegate request list` (or http://tidegate.internal/v1/requests) shows whether that person \
    has allowed it, `tidegate request file HOST --reason TEXT` says why it is needed, and no \
    command of yours settles it.";

/// The answer to the start of a session whose policy asks people.
pub(super) fn how_to_ask(event: &str) -> Value {
    json!({ "hookSpecificOutput": { "hookEventName": event, "additionalContext": HOW_TO_ASK } })
}

/// An answer in the form of Claude Code's hooks, which Codex and Gemini CLI read as well.
///
/// The answer consists of hosts in canonical form, words of closed lists, the ids of calls and the
/// names of tiers: the model receives no text of a third party by it.
pub(super) fn context(event: &str, own: &[RefusedFlow], earlier: &[RefusedFlow]) -> Value {
    if own.is_empty() && earlier.is_empty() {
        return json!({});
    }
    let mut text = String::new();
    if !own.is_empty() {
        text.push_str("tidegate, the network policy of this machine, refused in this call:\n");
        list(&mut text, own);
    }
    if !earlier.is_empty() {
        text.push_str(
            "tidegate, the network policy of this machine, refused in an earlier call, or to a process in \
             the background:\n",
        );
        list(&mut text, earlier);
    }
    text.push_str(
        "This is policy, not a network fault: do not retry, and do not look for another way. If the \
         task needs it, tell the person you work for. To see why, that person types:",
    );
    for it in own.iter().chain(earlier).take(MAX_COMMANDS) {
        let _ = write!(text, "\n  {}", it.explain);
    }
    let mut all = own.iter().chain(earlier);
    if all.any(|it| it.reason == "needs_approval") {
        let _ = write!(text, "\n{HOW_TO_ASK}");
    }
    json!({ "hookSpecificOutput": { "hookEventName": event, "additionalContext": text } })
}

fn list(text: &mut String, refused: &[RefusedFlow]) {
    for it in refused.iter().take(MAX_LISTED) {
        let RefusedFlow {
            attempt,
            category,
            reason,
            count,
            ..
        } = it;
        let tier = it.tier.as_deref().unwrap_or("unknown");
        let _ = write!(
            text,
            "- {attempt}: {reason} (category {category}, tier {tier})"
        );
        if *count > 1 {
            let _ = write!(text, ", {count} times");
        }
        text.push('\n');
    }
    if refused.len() > MAX_LISTED {
        let _ = writeln!(text, "- {} more", refused.len() - MAX_LISTED);
    }
}
