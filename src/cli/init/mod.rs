//! `tidegate init`: the settings that make an agent use the gate, shown before they are written.

pub(super) mod codex;
pub(super) mod diff;
pub(super) mod files;
pub(super) mod json;
mod other;
pub(super) mod settings;

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use serde_json::json;

use crate::config::AdminAddress;
use crate::diag::shell_word;

use super::env::Proxy;
use super::{Answer, admin, print};

use json::Json;
use settings::{Settings, proxy_variables};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Init {
    /// Settings for Claude Code: hooks, and the proxy.
    ClaudeCode(ClaudeCode),
    /// Settings for Codex: hooks, the proxy, and a text for the model.
    Codex(other::Other),
    /// Settings for GitHub Copilot CLI: hooks, and a text for the model.
    Copilot(other::Other),
    /// Settings for Gemini CLI: hooks, the proxy, and a text for the model.
    Gemini(other::Other),
    /// Settings for opencode: a plugin with hooks, and a text for the model.
    Opencode(other::Other),
}

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(super) struct ClaudeCode {
    /// The settings of this machine, which users and repositories cannot change.
    #[arg(long, conflicts_with_all = ["project", "user"])]
    managed: bool,
    /// The settings of the repository in this folder.
    #[arg(long, conflicts_with = "user")]
    project: bool,
    /// The settings of this user; this is the default.
    #[arg(long)]
    user: bool,
    /// Another file than the usual one.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Leave the proxy to the launcher of the agent: `tidegate exec`, `session start --env`.
    #[arg(long)]
    launched: bool,
    /// Write without asking.
    #[arg(long)]
    write: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The proxy, as the agent reaches it: http://HOST:PORT.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3128")]
    #[arg(value_parser = Proxy::parse)]
    proxy: Proxy,
    /// The admin listener of the gate, for agents that have the token of a session: ADDRESS:PORT or
    /// unix:PATH [default: as the launcher says, or the control socket].
    #[arg(long, value_name = "ADDRESS", value_parser = admin::parse_address)]
    admin: Option<AdminAddress>,
    /// The folder with the settings of this user.
    #[arg(long, env = "CLAUDE_CONFIG_DIR", hide = true)]
    folder: Option<String>,
    /// The home of this user.
    #[arg(long, env = "HOME", hide = true)]
    home: Option<String>,
}

impl Init {
    pub(super) fn perform(self) -> Answer {
        let done = match self {
            Self::ClaudeCode(init) => init.perform(),
            Self::Codex(init) => init.perform(other::Agent::Codex),
            Self::Copilot(init) => init.perform(other::Agent::Copilot),
            Self::Gemini(init) => init.perform(other::Agent::Gemini),
            Self::Opencode(init) => init.perform(other::Agent::Opencode),
        };
        done.unwrap_or_else(|(answer, why)| {
            print::err(&format!("tidegate: {}\n", print::clean(&why, 400)));
            answer
        })
    }
}

impl ClaudeCode {
    fn perform(&self) -> Result<Answer, (Answer, String)> {
        let wrong = |why: String| (Answer::Wrong, why);
        let failed = |why: io::Error| (Answer::Failed, why.to_string());
        let path = self.path().map_err(wrong)?;
        let before = files::read(&path).map_err(wrong)?;
        let mut settings = match &before {
            Some(text) => {
                Json::parse(text).map_err(|why| wrong(format!("{}: {why}", path.display())))?
            }
            None => Json::Object(Vec::new()),
        };
        self.settings()
            .put_into(&mut settings)
            .map_err(|why| wrong(format!("{}: {why}", path.display())))?;
        let after = settings.pretty();
        // A file with the same content in another layout stays unchanged.
        let same = |text: &String| Json::parse(text).is_ok_and(|before| before == settings);
        let changes = !before.as_ref().is_some_and(same);
        let lines = diff::lines(before.as_deref().unwrap_or_default(), &after);
        if !self.json {
            show(&path.display().to_string(), changes.then_some(&*lines));
        }
        let write = changes && (self.write || (!self.json && agreed()));
        let mut backup = None;
        if write {
            backup = files::write(&path, before.as_deref(), &after).map_err(failed)?;
        }
        if self.json {
            print::json(&json!({
                "file": path,
                "changes": if changes { lines } else { Vec::new() },
                "written": write,
                "backup": backup,
            }));
        } else if write {
            print::err(&format!("tidegate: wrote {}\n", path.display()));
        } else if changes {
            print::err("tidegate: nothing was written; --write does\n");
        }
        Ok(Answer::whether(write || !changes))
    }

    fn path(&self) -> Result<PathBuf, String> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        if self.managed {
            let apple = cfg!(target_os = "macos");
            return Ok(PathBuf::from(if apple {
                "/Library/Application Support/ClaudeCode/managed-settings.json"
            } else {
                "/etc/claude-code/managed-settings.json"
            }));
        }
        if self.project {
            return Ok(PathBuf::from(".claude/settings.json"));
        }
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let folder = given(&self.folder).map(PathBuf::from);
        let home = || given(&self.home).map(|home| PathBuf::from(home).join(".claude"));
        let folder = folder.or_else(home).ok_or("HOME is not set")?;
        Ok(folder.join("settings.json"))
    }

    fn settings(&self) -> Settings {
        let mut variables = Vec::new();
        if !self.launched {
            variables.extend(proxy_variables(&self.proxy));
        }
        if let Some(admin) = &self.admin {
            variables.push(("TIDEGATE_ADMIN", admin::show_address(admin)));
        }
        Settings {
            program: program(self.project),
            variables,
            managed: self.managed,
        }
    }
}

/// Returns the program as a word of a shell: its name if the settings are for several machines,
/// otherwise its path, which no PATH changes.
pub(super) fn program(shared: bool) -> String {
    let own = std::env::current_exe().ok();
    let own = own.and_then(|path| path.into_os_string().into_string().ok());
    own.filter(|_| !shared)
        .map_or_else(|| "tidegate".to_owned(), |path| shell_word(&path))
}

fn show(path: &str, lines: Option<&[String]>) {
    let Some(lines) = lines else {
        print::out(&format!("{path}: nothing to change\n"));
        return;
    };
    let mut text = format!("{path}:\n");
    for line in lines {
        text.extend([&*print::clean(line, 200), "\n"]);
    }
    print::out(&text);
}

/// Asks the user at the terminal for confirmation.
fn agreed() -> bool {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return false;
    }
    print::err("Write this? [y/N] ");
    let mut line = String::new();
    let _ = stdin.lock().read_line(&mut line);
    matches!(line.trim(), "y" | "Y" | "yes")
}
