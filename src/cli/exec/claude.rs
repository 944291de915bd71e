//! The arguments of Claude Code: its session id, and hooks for this run. If a script starts Claude
//! Code by name, a program of that name, first in the PATH, adds the hooks.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::super::init::json::Json;
use super::super::init::program;
use super::super::init::settings::Settings;
use super::super::print;
use super::agent::in_path;
use super::own_file;
use crate::diag::shell_word;

/// Options that select the session.
const SESSION: [&str; 4] = ["--session-id", "--resume", "--continue", "--from-pr"];
const SETTINGS: &str = "--settings";
const NAME: &str = "claude";
const WRAPPER_FOLDER: &str = "agents-bin";

/// Returns the command with a session and with hooks. The hooks are on the command line, so no file
/// of the user is changed. If the command line names a settings file, hooks cannot be added.
pub(super) fn words(
    command: &[OsString],
    session: &str,
    variables: &[(&'static str, String)],
) -> Vec<OsString> {
    let mut words = command.to_vec();
    if !chooses_its_session(command) {
        words.splice(1..1, ["--session-id".into(), session.into()]);
    }
    let hooks = Settings {
        program: program(false),
        variables: public(variables),
        managed: false,
    };
    if let Err(why) = add_settings(&mut words, &hooks) {
        print::err(&format!(
            "tidegate: the hooks of this run are not added: {why}. Without them tool calls are not \
             on record, and the agent is not told what is refused.\n"
        ));
    }
    words
}

/// Writes the program that a script finds under the name of Claude Code; returns its folder.
pub(super) fn write_wrapper(record: Option<&Path>) -> io::Result<PathBuf> {
    let folder = own_file::folder(record)?.join(WRAPPER_FOLDER);
    // In a command of an earlier `exec`, the PATH contains the wrapper itself.
    let real = in_path(Path::new(NAME)).find(|it| it.parent() != Some(&folder));
    let real = real.ok_or_else(|| io::Error::other("`claude` is not in the PATH"))?;
    let text = wrapper(&std::path::absolute(real)?).map_err(io::Error::other)?;
    std::fs::create_dir_all(&folder)?;
    own_file::write(&folder.join(NAME), &text, 0o755)?;
    Ok(folder)
}

/// Returns the text of that program. It adds nothing if the script passes `--settings`: a second
/// `--settings` would replace the first.
fn wrapper(real: &Path) -> Result<String, String> {
    let hooks = Settings {
        program: program(false),
        variables: Vec::new(),
        managed: false,
    };
    let mut settings = Json::Object(Vec::new());
    hooks.put_into(&mut settings)?;
    let (real, settings) = (real.to_string_lossy(), settings.compact());
    let (real, settings) = (shell_word(&real), shell_word(&settings));
    Ok(format!(
        "#!/bin/sh\n# Written by tidegate exec: Claude Code with hooks for tidegate.\n\
         for word; do\n  case $word in {SETTINGS}|{SETTINGS}=*) exec {real} \"$@\" ;; esac\ndone\n\
         exec {real} {SETTINGS} {settings} \"$@\"\n"
    ))
}

/// Whether the command selects the session, so that the agent uses an id of its own.
pub(super) fn chooses_its_session(command: &[OsString]) -> bool {
    command.iter().any(|word| {
        let word = word.to_string_lossy();
        let name = word.split('=').next().unwrap_or_default();
        // `-r` and `-c`, optionally among other letters.
        let short = name.starts_with('-') && !name.starts_with("--");
        SESSION.contains(&name) || short && name.contains(['r', 'c'])
    })
}

/// Returns the variables without secrets, which override the user's own settings: every process of
/// this host can read a command line.
fn public(variables: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    let names = ["TIDEGATE_ADMIN", "TIDEGATE_PROXY", "TIDEGATE_SESSION"];
    let public = variables.iter().filter(|(name, _)| names.contains(name));
    public.cloned().collect()
}

fn add_settings(words: &mut Vec<OsString>, hooks: &Settings) -> Result<(), String> {
    let found = words.iter().position(|word| {
        let word = word.to_string_lossy();
        word == SETTINGS || word.starts_with("--settings=")
    });
    let Some(at) = found else {
        let mut settings = Json::Object(Vec::new());
        hooks.put_into(&mut settings)?;
        words.splice(1..1, [SETTINGS.into(), settings.compact().into()]);
        return Ok(());
    };
    let word = words
        .get(at)
        .map(|word| word.to_string_lossy().into_owned());
    let inside = word
        .as_deref()
        .and_then(|word| word.strip_prefix("--settings="));
    let at = if inside.is_some() { at } else { at + 1 };
    let next = words
        .get(at)
        .map(|word| word.to_string_lossy().into_owned());
    let given = inside.map(str::to_owned).or(next).unwrap_or_default();
    if !given.trim_start().starts_with('{') {
        return Err(format!(
            "{SETTINGS} {} is a file of yours: `tidegate init claude-code --launched --file FILE \
             --write` adds them there",
            print::clean(&given, 100)
        ));
    }
    let mut settings = Json::parse(&given)?;
    hooks.put_into(&mut settings)?;
    let prefix = if inside.is_some() { "--settings=" } else { "" };
    if let Some(word) = words.get_mut(at) {
        *word = format!("{prefix}{}", settings.compact()).into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(words: &[&str]) -> Vec<String> {
        let command: Vec<OsString> = words.iter().map(OsString::from).collect();
        let secret = [
            ("HTTPS_PROXY", "http://s.main:token@127.0.0.1:1".to_owned()),
            ("TIDEGATE_ADMIN", "127.0.0.1:2".to_owned()),
            ("TIDEGATE_TOKEN", "token".to_owned()),
        ];
        let words = super::words(&command, "id", &secret);
        let words = words.iter().map(|word| word.to_string_lossy().into_owned());
        words.collect()
    }

    #[test]
    fn hooks_and_a_session_come_before_the_words_of_the_user() {
        let words = started(&["claude", "-p", "go"]);
        assert_eq!(words.len(), 7);
        assert_eq!([&words[0], &words[1]], ["claude", "--settings"]);
        assert_eq!(words[3..], ["--session-id", "id", "-p", "go"]);
        let settings: serde_json::Value = serde_json::from_str(&words[2]).unwrap();
        let hook = &settings["hooks"]["PreToolUse"][0]["hooks"][0];
        assert_eq!(hook["type"], "command");
        assert_eq!(settings["env"]["TIDEGATE_ADMIN"], "127.0.0.1:2");
        assert!(!words.concat().contains("token"), "{words:?}");
    }

    #[test]
    fn a_script_that_starts_claude_gets_hooks_unless_it_has_settings() {
        let folder = tempfile::TempDir::new().unwrap();
        let real = folder.path().join("it's claude");
        std::fs::write(&real, "#!/bin/sh\nfor word; do echo \"$word\"; done\n").unwrap();
        let path = folder.path().join(NAME);
        std::fs::write(&path, wrapper(&real).unwrap()).unwrap();
        let run = |words: &[&str]| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&real, mode).unwrap();
            let mut command = std::process::Command::new("sh");
            let output = command.arg(&path).args(words).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let text = run(&["-p", "a b"]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[2], lines[3]), (SETTINGS, "-p", "a b"));
        assert!(lines[1].starts_with('{') && lines[1].contains("session hook"));
        assert_eq!(run(&["--settings={}", "-p"]), "--settings={}\n-p\n");
    }

    #[test]
    fn settings_of_the_user_stay_and_a_session_of_the_user_does_too() {
        for given in [&["--settings", "{\"a\":1}"][..], &["--settings={\"a\":1}"]] {
            let command = [&["claude", "-c"], given].concat();
            let words = started(&command);
            assert_eq!(words.len(), command.len(), "{words:?}");
            let last = words.last().unwrap();
            let json = last.strip_prefix("--settings=").unwrap_or(last);
            let settings: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(settings["a"], 1);
            assert!(settings["hooks"]["SessionStart"].is_array());
        }
        let file = started(&["claude", "--resume", "--settings", "mine.json"]);
        assert_eq!(file, ["claude", "--resume", "--settings", "mine.json"]);
    }
}
