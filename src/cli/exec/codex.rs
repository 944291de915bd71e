//! The arguments of Codex: hooks for this run.
//!
//! Codex runs a hook only if its user trusts it, by a hash of its definition
//! (`hooks.state.KEY.trusted_hash`). The command line has the hash of each hook of the gate, so
//! that these hooks run in this process and no other hook gains trust. A version of Codex with
//! another hash leaves the hooks out, and lists them under `/hooks`.

use std::ffi::OsString;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde_json::json;

use super::super::init::program;

/// Events, with their names in Codex's keys.
const EVENTS: [(&str, &str); 4] = [
    ("SessionStart", "session_start"),
    ("UserPromptSubmit", "user_prompt_submit"),
    ("PreToolUse", "pre_tool_use"),
    ("PostToolUse", "post_tool_use"),
];
/// The source that Codex gives to hooks of a command line.
const SOURCE: &str = "/<session-flags>/config.toml";
/// How long the agent waits for a hook, in seconds: longer than the hook waits for its gate.
const HOOK_TIMEOUT: u32 = 10;

/// Returns the command with hooks. No file of the user is changed.
pub(super) fn words(command: &[OsString]) -> Vec<OsString> {
    let mut words = command.to_vec();
    let hook = format!("{} session hook --agent codex", program(false));
    words.splice(1..1, ["-c".into(), setting(&hook).into()]);
    words
}

/// Returns the value of `-c`, in TOML.
fn setting(command: &str) -> String {
    let text = toml::Value::from(command).to_string();
    let hooks = EVENTS.map(|(event, _)| {
        format!("{event}=[{{hooks=[{{type=\"command\",command={text},timeout={HOOK_TIMEOUT}}}]}}]")
    });
    let state = EVENTS.map(|(_, event)| {
        let hash = trusted_hash(event, command);
        format!("\"{SOURCE}:{event}:0:0\"={{trusted_hash=\"{hash}\"}}")
    });
    format!(
        "hooks={{{},state={{{}}}}}",
        hooks.join(","),
        state.join(",")
    )
}

/// Returns Codex's hash of a hook: of its definition as JSON without blanks, keys in order.
fn trusted_hash(event: &str, command: &str) -> String {
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
        // As `hooks/list` of Codex 0.171.0 reports it for a hook with this command and timeout.
        assert_eq!(
            trusted_hash("pre_tool_use", "/bin/true"),
            "sha256:c087ff0e50465a7ec5c7d7a19dfc18c0253a9c3526e6bf9a52a52018e8ba53b4"
        );
    }

    #[test]
    fn hooks_stand_before_the_words_of_the_user_and_are_toml() {
        let words = words(&["codex".into(), "exec".into(), "go".into()]);
        assert_eq!(words[0], "codex");
        assert_eq!(words[1], "-c");
        assert_eq!(words[3..], ["exec", "go"]);
        let setting = setting("'/a b/tidegate' session hook --agent codex");
        let table: toml::Table = setting.parse().unwrap();
        let hook = &table["hooks"]["PreToolUse"][0]["hooks"][0]["command"];
        assert_eq!(
            hook.as_str(),
            Some("'/a b/tidegate' session hook --agent codex")
        );
        assert_eq!(
            table["hooks"]["state"].as_table().unwrap().len(),
            EVENTS.len()
        );
    }
}
