//! The arguments of Codex: hooks for this run.
//!
//! Codex runs a hook only if its user trusts it, by a hash of its definition
//! (`hooks.state.KEY.trusted_hash`). The command line has the hash of each hook of the gate, so
//! that these hooks run in this process and no other hook gains trust. A version of Codex with
//! another hash leaves the hooks out, and lists them under `/hooks`.

use std::ffi::OsString;

use super::super::init::codex::{EVENTS, HOOK_TIMEOUT, hook_command, trusted_hash};

/// The source that Codex gives to hooks of a command line.
const SOURCE: &str = "/<session-flags>/config.toml";

/// Returns the command with hooks. No file of the user is changed.
pub(super) fn words(command: &[OsString]) -> Vec<OsString> {
    let mut words = command.to_vec();
    words.splice(1..1, ["-c".into(), setting(&hook_command()).into()]);
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

#[cfg(test)]
mod tests {
    use super::*;

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
