//! `tidegate init codex|copilot|gemini|opencode`: hooks, the proxy, the trusted certificates, and instructions
//! for the model. Where `tidegate exec` starts Codex, Copilot CLI or opencode, it adds their hooks (`--launched`).

use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::env::{self, Proxy};
use super::super::exec::{self, PLUGIN_SIGN};
use super::super::{Answer, ca, load, print};
use super::codex;
use super::json::Json;
use super::settings::{copilot_hooks, put_gemini_hooks};
use super::{agreed, diff, files, program, show};
use crate::config;

/// The marks around the gate's part of a user's file.
const BEGIN: &str = "tidegate: begin (written by `tidegate init`)";
const END: &str = "tidegate: end";

/// The instructions for the model, in a file that the agent reads into each session.
const CONTEXT: &str = "\
Network connections of this machine go through tidegate, a filter that decides each of them by policy.
A refused connection ends with status 403, or its name does not exist. A refusal is a decision, not a
fault: do not retry it, and do not look for another way. `tidegate explain URL` says why and what to
ask for. Tell the user which host you needed and why.
";

/// An agent whose settings are text files.
#[derive(Clone, Copy, Debug)]
pub(super) enum Agent {
    Codex,
    Copilot,
    Gemini,
    Opencode,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Other {
    /// Leave the proxy to the program that starts the agent: `tidegate exec`, a shell with
    /// `tidegate env`.
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
    /// The configuration of the gate: where it inspects, the agent gets the authority to trust [default:
    /// `$TIDEGATE_CONFIG`, /etc/tidegate/tidegate.toml, ~/.config/tidegate/tidegate.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of the settings [default: the agent's own].
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// The home of this user.
    #[arg(long, env = "HOME", hide = true)]
    home: Option<PathBuf>,
    /// Where Codex has its settings.
    #[arg(long, env = "CODEX_HOME", hide = true)]
    codex_home: Option<PathBuf>,
    /// Where Copilot CLI has its settings.
    #[arg(long, env = "COPILOT_HOME", hide = true)]
    copilot_home: Option<PathBuf>,
    /// Where programs have their settings.
    #[arg(long, env = "XDG_CONFIG_HOME", hide = true)]
    config_home: Option<PathBuf>,
}

/// A file with its old and new text.
struct Change {
    path: PathBuf,
    before: Option<String>,
    after: String,
}

impl Agent {
    /// Returns the file of environment variables that the agent reads at its start, in its folder.
    fn variables(self) -> Option<&'static str> {
        match self {
            Self::Codex | Self::Gemini => Some(".env"),
            Self::Copilot | Self::Opencode => None,
        }
    }

    /// Returns the file of instructions for the model.
    fn context(self) -> &'static str {
        match self {
            Self::Codex | Self::Opencode => "AGENTS.md",
            Self::Copilot => "copilot-instructions.md",
            Self::Gemini => "GEMINI.md",
        }
    }
}

impl Other {
    pub(super) fn perform(&self, agent: Agent) -> Result<Answer, (Answer, String)> {
        let changes = self.changes(agent).map_err(|why| (Answer::Wrong, why))?;
        let failed = |why: io::Error| (Answer::Failed, why.to_string());
        let lines: Vec<Vec<String>> = changes.iter().map(Change::lines).collect();
        if !self.json {
            for (change, lines) in changes.iter().zip(&lines) {
                let shown = (!lines.is_empty()).then_some(&**lines);
                show(&change.path.display().to_string(), shown);
            }
        }
        let differs = lines.iter().any(|lines| !lines.is_empty());
        let write = differs && (self.write || (!self.json && agreed()));
        let mut backups = Vec::new();
        for change in changes.iter().filter(|it| write && !it.lines().is_empty()) {
            let before = change.before.as_deref();
            backups.extend(files::write(&change.path, before, &change.after).map_err(failed)?);
        }
        self.tell(agent, &changes, write, &backups);
        Ok(Answer::whether(write || !differs))
    }

    fn tell(&self, agent: Agent, changes: &[Change], written: bool, backups: &[PathBuf]) {
        if self.json {
            let files = changes
                .iter()
                .map(|it| json!({"file": it.path, "changes": it.lines()}));
            let files: Vec<_> = files.collect();
            print::json(&json!({"files": files, "written": written, "backups": backups}));
            return;
        }
        let said = if written {
            "wrote them"
        } else {
            "nothing was written; --write does"
        };
        print::err(&format!("tidegate: {said}\n"));
        if agent.variables().is_none() && !self.launched {
            print::err(
                "tidegate: this agent reads no file of variables: start it with `tidegate exec`, \
                 or in a shell with eval \"$(tidegate env)\"\n",
            );
        }
    }

    fn changes(&self, agent: Agent) -> Result<Vec<Change>, String> {
        let folder = self.place(agent).ok_or("HOME is not set")?;
        let mut changes = vec![Change::of(
            folder.join(agent.context()),
            ["<!-- ", " -->"],
            CONTEXT,
        )?];
        match agent {
            Agent::Copilot => changes.push(Change::of_copilot(&folder)?),
            Agent::Gemini => changes.push(Change::of_gemini(folder.join("settings.json"))?),
            Agent::Codex if !self.launched => changes.push(Change::of_codex(&folder)?),
            Agent::Opencode if !self.launched => changes.push(Change::of_plugin(&folder)?),
            Agent::Codex | Agent::Opencode => {}
        }
        if let Some(name) = agent.variables().filter(|_| !self.launched) {
            let variables = self.variables()?;
            changes.push(Change::of(folder.join(name), ["# ", ""], &variables)?);
        }
        Ok(changes)
    }

    fn place(&self, agent: Agent) -> Option<PathBuf> {
        let home = |name: &str| self.home.as_ref().map(|home| home.join(name));
        let given = self.folder.clone();
        given.or_else(|| match agent {
            Agent::Codex => self.codex_home.clone().or_else(|| home(".codex")),
            Agent::Copilot => self.copilot_home.clone().or_else(|| home(".copilot")),
            Agent::Gemini => home(".gemini"),
            Agent::Opencode => {
                let folder = self.config_home.clone().or_else(|| home(".config"))?;
                Some(folder.join("opencode"))
            }
        })
    }

    /// Returns the variables as lines of a file that the agent reads.
    fn variables(&self) -> Result<String, String> {
        let mut variables = self.proxy.variables();
        if let Some(path) = load::find(self.config.as_deref(), true).path {
            let config = config::load(&path).0;
            let config = config.ok_or_else(|| {
                format!(
                    "{} does not load: `tidegate check` says why",
                    path.display()
                )
            })?;
            if let Some(bundle) = ca::trusted(&config) {
                let bundle = bundle.map_err(|error| error.to_string())?;
                env::add(&mut variables, ca::variables(&bundle));
            }
        }
        // Java's and git's options are lists: the values of the user's shell would be lost.
        variables
            .retain(|(name, _)| !["JAVA_TOOL_OPTIONS", "GIT_CONFIG_PARAMETERS"].contains(name));
        let not_plain = |(_, value): &&(&str, String)| value.contains(['"', '\\', '$', '\n']);
        if let Some((name, _)) = variables.iter().find(not_plain) {
            return Err(format!(
                "the value of {name} has a character that a file of variables cannot hold: keep the \
                 records of the gate in a folder without quotes, backslashes and dollar signs"
            ));
        }
        let lines = variables
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\"\n"));
        Ok(lines.collect())
    }
}

impl Change {
    /// Inserts a text between the two marks: replaces the text there, or appends at the end.
    fn of(path: PathBuf, comment: [&str; 2], text: &str) -> Result<Self, String> {
        let before = files::read(&path)?;
        let [open, close] = comment;
        let begin = format!("{open}{BEGIN}{close}\n");
        let end = format!("{open}{END}{close}\n");
        let ours = format!("{begin}{text}{end}");
        let old = before.clone().unwrap_or_default();
        let after = match (old.find(&begin), old.find(&end)) {
            (Some(from), Some(to)) if from < to => {
                let (head, rest) = old.split_at(from);
                let tail = rest.get(to - from + end.len()..).unwrap_or_default();
                format!("{head}{ours}{tail}")
            }
            (None, None) if old.is_empty() => ours,
            (None, None) => format!("{}\n\n{ours}", old.trim_end_matches('\n')),
            _ => return Err(unpaired(&path)),
        };
        Ok(Self {
            path,
            before,
            after,
        })
    }

    /// Adds hooks to the settings of Codex, at their end.
    fn of_codex(folder: &Path) -> Result<Self, String> {
        let path = std::path::absolute(folder.join("config.toml"));
        let path = path.map_err(|error| error.to_string())?;
        let before = files::read(&path)?.unwrap_or_default();
        let above = before.split(&format!("# {BEGIN}\n")).next();
        let ours = codex::tables(&path, above.unwrap_or_default())?;
        let change = Self::of(path, ["# ", ""], &ours)?;
        // Settings that the user wrote in another form may rule tables out.
        match change.after.parse::<toml::Table>() {
            Ok(_) => Ok(change),
            Err(error) => Err(format!(
                "{}: hooks cannot be added to what is there: {error}",
                change.path.display()
            )),
        }
    }

    /// Writes the plugin of opencode.
    fn of_plugin(folder: &Path) -> Result<Self, String> {
        let after = exec::opencode_plugin().map_err(|error| error.to_string())?;
        Self::of_own_file(folder.join("plugin/tidegate.js"), after)
    }

    /// Writes the hooks of Copilot CLI.
    fn of_copilot(folder: &Path) -> Result<Self, String> {
        let hooks = json!({
            "version": 1,
            "description": format!("{PLUGIN_SIGN} init: reports tool calls to tidegate."),
            "hooks": copilot_hooks(&program(false)),
        });
        Self::of_own_file(folder.join("hooks/tidegate.json"), format!("{hooks:#}\n"))
    }

    /// Plans a file that only this command writes.
    fn of_own_file(path: PathBuf, after: String) -> Result<Self, String> {
        let before = files::read(&path)?;
        let is_ours = |text: &String| text.contains(PLUGIN_SIGN);
        if !before.as_ref().is_none_or(is_ours) {
            return Err(format!(
                "{} is there, and tidegate did not write it: move it away",
                path.display()
            ));
        }
        Ok(Self {
            path,
            before,
            after,
        })
    }

    /// Adds hooks to the settings of Gemini CLI.
    fn of_gemini(path: PathBuf) -> Result<Self, String> {
        let before = files::read(&path)?;
        let wrong = |why: String| format!("{}: {why}", path.display());
        let mut settings = match &before {
            Some(text) => Json::parse(text).map_err(wrong)?,
            None => Json::Object(Vec::new()),
        };
        let old = settings.pretty();
        put_gemini_hooks(&mut settings, &program(false)).map_err(wrong)?;
        let after = match &before {
            // A file with the same content in another layout stays unchanged.
            Some(text) if settings.pretty() == old => text.clone(),
            _ => settings.pretty(),
        };
        Ok(Self {
            path,
            before,
            after,
        })
    }

    fn lines(&self) -> Vec<String> {
        diff::lines(self.before.as_deref().unwrap_or_default(), &self.after)
    }
}

fn unpaired(path: &Path) -> String {
    format!(
        "{}: only one of the two lines `{BEGIN}` and `{END}` is there: remove it, and what stands \
         below it if tidegate wrote that",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(before: &str) -> Result<String, String> {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("AGENTS.md");
        std::fs::write(&path, before).unwrap();
        Change::of(path, ["<!-- ", " -->"], "Words.\n").map(|change| change.after)
    }

    #[test]
    fn what_the_user_wrote_stays_and_ours_is_replaced() {
        let ours = change("").unwrap();
        assert!(
            ours.contains("Words.\n") && ours.lines().count() == 3,
            "{ours}"
        );
        let beside = change("# Mine\n").unwrap();
        assert_eq!(beside, format!("# Mine\n\n{ours}"));
        let older = beside.replace("Words.", "Other words.");
        assert_eq!(change(&older).unwrap(), beside);
        assert_eq!(
            change(&format!("{ours}after\n")).unwrap(),
            format!("{ours}after\n")
        );
    }

    #[test]
    fn a_block_without_its_end_is_not_guessed_at() {
        let why = change(&format!("<!-- {BEGIN} -->\nWords.\n")).unwrap_err();
        assert!(why.contains("only one of the two lines"), "{why}");
    }
}
