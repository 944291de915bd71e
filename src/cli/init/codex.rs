//! Hooks of Codex: in the `config.toml` of its user, or on a command line (`exec`).
//!
//! Codex runs a hook only where its user trusts it, by a hash of its definition
//! (`hooks.state.KEY.trusted_hash`). The key has the file of the hook, its event and its place in the
//! file. A version of Codex that hashes in another way leaves our hooks out, and lists them under
//! `/hooks`.

use std::fmt::{Display, Write as _};
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde_json::json;
use toml::{Table, Value};

use super::program;

/// Events with the names that Codex has for them in keys.
pub(in crate::cli) const EVENTS: [(&str, &str); 4] = [
    ("SessionStart", "session_start"),
    ("UserPromptSubmit", "user_prompt_submit"),
    ("PreToolUse", "pre_tool_use"),
    ("PostToolUse", "post_tool_use"),
];
/// How long the agent waits for a hook, in seconds: longer than the hook waits for its gate.
pub(in crate::cli) const HOOK_TIMEOUT: u32 = 10;

/// The command of each hook.
pub(in crate::cli) fn hook_command() -> String {
    format!("{} session hook --agent codex", program(false))
}

/// The tables of our hooks in `file`, below the text `before`.
pub(super) fn tables(file: &Path, before: &str) -> Result<String, String> {
    let wrong = |why: &dyn Display| format!("{}: {why}", file.display());
    let above: Table = before.parse().map_err(|error| wrong(&error))?;
    let command = hook_command();
    let text = Value::from(command.as_str());
    let path = file.to_str().ok_or_else(|| wrong(&"its path is no text"))?;
    let mut tables = String::new();
    let mut trust = String::new();
    for (event, name) in EVENTS {
        let _ = write!(
            tables,
            "[[hooks.{event}]]\n[[hooks.{event}.hooks]]\ntype = \"command\"\ncommand = {text}\n\
             timeout = {HOOK_TIMEOUT}\n\n"
        );
        let groups = above.get("hooks").and_then(|hooks| hooks.get(event));
        let place = groups.and_then(Value::as_array).map_or(0, Vec::len);
        let key = Value::from(format!("{path}:{name}:{place}:0"));
        let hash = trusted_hash(name, &command);
        let _ = write!(trust, "[hooks.state.{key}]\ntrusted_hash = \"{hash}\"\n");
    }
    Ok(tables + &trust)
}

/// The hash by which Codex knows a hook: of its definition as JSON without blanks, keys in order.
pub(in crate::cli) fn trusted_hash(event: &str, command: &str) -> String {
    let definition = json!({
        "event_name": event,
        "hooks": [{ "async": false, "command": command, "timeout": HOOK_TIMEOUT, "type": "command" }],
    });
    let hash = digest(&SHA256, definition.to_string().as_bytes());
    format!("sha256:{}", HEXLOWER.encode(hash.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_codex() {
        // As `hooks/list` of Codex 0.171.0 says it for a hook with this command and timeout.
        assert_eq!(
            trusted_hash("pre_tool_use", "/bin/true"),
            "sha256:c087ff0e50465a7ec5c7d7a19dfc18c0253a9c3526e6bf9a52a52018e8ba53b4"
        );
    }

    #[test]
    fn our_hooks_stand_behind_those_of_the_user_and_are_trusted_at_their_place() {
        let before = "model = \"m\"\n[[hooks.PreToolUse]]\n[[hooks.PreToolUse.hooks]]\n\
                      type = \"command\"\ncommand = \"mine\"\n";
        let ours = tables(Path::new("/home/ana/.codex/config.toml"), before).unwrap();
        let whole: Table = format!("{before}{ours}").parse().unwrap();
        let groups = whole["hooks"]["PreToolUse"].as_array().unwrap();
        assert_eq!(groups[0]["hooks"][0]["command"].as_str(), Some("mine"));
        let command = groups[1]["hooks"][0]["command"].as_str().unwrap();
        assert!(
            command.ends_with(" session hook --agent codex"),
            "{command}"
        );
        let state = whole["hooks"]["state"].as_table().unwrap();
        for (key, place) in [("pre_tool_use", 1), ("session_start", 0)] {
            let key = format!("/home/ana/.codex/config.toml:{key}:{place}:0");
            assert!(state.contains_key(&key), "{key}: {state:?}");
        }
        assert!(tables(Path::new("/x"), "a = ").is_err());
    }
}
