//! Recognises the coding agent of a command: by its name, by its wrapper, or from `--agent`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

/// Maximum bytes of a script that are searched for an agent.
const MAX_SCRIPT: u64 = 64 << 10;

/// Programs that start the command in their arguments.
const WRAPPERS: [&str; 20] = [
    "bun", "bunx", "env", "exec", "ionice", "nice", "node", "nohup", "npm", "npx", "pipx", "pnpm",
    "python", "python3", "setsid", "stdbuf", "time", "timeout", "uv", "uvx",
];

/// An agent that `exec` supports.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Agent {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// Gemini CLI.
    Gemini,
    /// opencode.
    Opencode,
    /// aider.
    Aider,
    /// GitHub Copilot CLI.
    Copilot,
    /// Cursor's agent.
    #[value(name = "cursor-agent")]
    Cursor,
}

/// The agent of a command line, and the position of its program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Recognised {
    pub(super) agent: Agent,
    /// The index of the program among the words; `None` if a script starts it.
    pub(super) word: Option<usize>,
}

impl Agent {
    const ALL: [Self; 7] = [
        Self::Claude,
        Self::Codex,
        Self::Gemini,
        Self::Opencode,
        Self::Aider,
        Self::Copilot,
        Self::Cursor,
    ];

    /// Returns the name in records and in the catalogue (`agents`).
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude-code",
            Self::Codex => "codex",
            Self::Gemini => "gemini-cli",
            Self::Opencode => "opencode",
            Self::Aider => "aider",
            Self::Copilot => "copilot",
            Self::Cursor => "cursor-agent",
        }
    }

    /// Returns the names of its program, and of the packages that contain it.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Claude => &["claude", "@anthropic-ai/claude-code"],
            Self::Codex => &["codex", "@openai/codex"],
            Self::Gemini => &["gemini", "@google/gemini-cli"],
            Self::Opencode => &["opencode", "opencode-ai"],
            Self::Aider => &["aider", "aider-chat"],
            Self::Copilot => &["copilot", "@github/copilot"],
            Self::Cursor => &["cursor-agent"],
        }
    }

    /// Returns the agent that a word of a command line names: `claude`, `/opt/bin/claude`,
    /// `@openai/codex@0.171.0`, `…/node_modules/@google/gemini-cli/bundle/gemini.js`.
    fn of_word(word: &str) -> Option<Self> {
        let name = word.rsplit('/').next().unwrap_or_default();
        let package = match word.rfind('@') {
            None | Some(0) => word,
            Some(at) => word.get(..at).unwrap_or_default(),
        };
        let installed = word
            .rsplit_once("node_modules/")
            .map_or("", |(_, rest)| rest);
        Self::ALL.into_iter().find(|agent| {
            agent.programs().iter().any(|program| {
                let inside = installed.strip_prefix(program);
                *program == name
                    || *program == package
                    || inside.is_some_and(|rest| rest.starts_with('/'))
            })
        })
    }
}

impl Recognised {
    /// Returns the agent that a command line starts, or the agent `said` by `--agent`.
    pub(super) fn of(words: &[OsString], said: Option<Agent>) -> Option<Self> {
        let found = Self::in_words(words).or_else(|| Self::in_script(words.first()?));
        match said {
            Some(agent) => Some(Self {
                agent,
                word: found
                    .filter(|found| found.agent == agent)
                    .and_then(|it| it.word),
            }),
            None => found,
        }
    }

    /// Returns the first word that names an agent, if only wrappers precede it.
    fn in_words(words: &[OsString]) -> Option<Self> {
        let wrapped = words.first().is_some_and(|first| {
            WRAPPERS.contains(&base(first)) || base(first).starts_with("python3.")
        });
        let looked_at = if wrapped { words.len() } else { 1 };
        let mut words = words.iter().enumerate().take(looked_at);
        words.find_map(|(at, word)| {
            let agent = Agent::of_word(word.to_str()?)?;
            Some(Self {
                agent,
                word: Some(at),
            })
        })
    }

    /// Returns the agent that a shell script starts: the first word of a line, optionally after
    /// `exec` or a wrapper. If the agent's program has another name, its link target is used.
    fn in_script(program: &OsStr) -> Option<Self> {
        let path = find(Path::new(program))?;
        if let Some(agent) = path.canonicalize().ok().and_then(|real| {
            let real = real.into_os_string().into_string().ok()?;
            Agent::of_word(&real)
        }) {
            return Some(Self {
                agent,
                word: Some(0),
            });
        }
        let mut text = String::new();
        File::open(&path)
            .ok()?
            .take(MAX_SCRIPT)
            .read_to_string(&mut text)
            .ok()?;
        let (first, lines) = text.split_once('\n')?;
        let shell = first
            .strip_prefix("#!")
            .is_some_and(|interpreter| interpreter.ends_with("sh"));
        let of_line = |line: &str| {
            let words = line.split_ascii_whitespace().map(unquoted);
            let words: Vec<OsString> = words.map(OsString::from).collect();
            Self::in_words(&words)
        };
        let found = lines.lines().filter(|_| shell).find_map(of_line)?;
        Some(Self {
            agent: found.agent,
            word: None,
        })
    }
}

fn unquoted(word: &str) -> &str {
    word.trim_matches(['"', '\''])
}

fn base(word: &OsStr) -> &str {
    let name = Path::new(word).file_name().and_then(OsStr::to_str);
    name.unwrap_or_default()
}

/// Returns the path of a program: itself, or the first one of that name in the PATH.
fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return Some(program.to_owned());
    }
    in_path(program).next()
}

/// Returns the files of a name in the folders of the PATH, in their order.
pub(super) fn in_path(name: &Path) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").into_iter();
    let folders = path.flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let places = folders.map(move |folder| folder.join(name));
    places.filter(|place| place.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<(Agent, Option<usize>)> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Recognised::of(&words, None).map(|found| (found.agent, found.word))
    }

    #[test]
    fn an_agent_is_found_by_its_program_and_behind_wrappers() {
        for (line, agent, word) in [
            ("claude -p go", Agent::Claude, 0),
            ("/opt/bin/claude", Agent::Claude, 0),
            ("env A=1 nice -n 5 codex exec go", Agent::Codex, 5),
            ("npx -y @openai/codex@0.171.0 exec", Agent::Codex, 2),
            ("npx @google/gemini-cli", Agent::Gemini, 1),
            (
                "node /x/node_modules/@google/gemini-cli/bundle/gemini.js",
                Agent::Gemini,
                1,
            ),
            ("timeout 60 opencode run go", Agent::Opencode, 2),
            ("uvx aider-chat --message go", Agent::Aider, 1),
            ("python3 -m aider", Agent::Aider, 2),
            ("copilot", Agent::Copilot, 0),
            ("cursor-agent -p go", Agent::Cursor, 0),
        ] {
            assert_eq!(of(line), Some((agent, Some(word))), "{line}");
        }
    }

    #[test]
    fn a_command_that_only_names_an_agent_is_none() {
        for line in [
            "curl https://claude",
            "git commit -m codex",
            "less claude",
            "npx @openai/codex-extras",
            "make",
            "",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }

    #[test]
    fn a_script_and_a_link_that_start_an_agent_are_seen_through() {
        let folder = tempfile::TempDir::new().unwrap();
        let script = folder.path().join("work");
        std::fs::write(&script, "#!/bin/sh\nset -e\nexec \"claude\" \"$@\"\n").unwrap();
        let words = [script.clone().into_os_string()];
        let found = Recognised::of(&words, None).unwrap();
        assert_eq!((found.agent, found.word), (Agent::Claude, None));
        // Other programs and other text files are not searched.
        std::fs::write(&script, "#!/usr/bin/python3\nclaude = 1\n").unwrap();
        assert_eq!(Recognised::of(&words, None), None);
        let package = folder.path().join("node_modules/@openai/codex/bin");
        std::fs::create_dir_all(&package).unwrap();
        std::fs::write(package.join("run.js"), "").unwrap();
        let link = folder.path().join("assistant");
        std::os::unix::fs::symlink(package.join("run.js"), &link).unwrap();
        let found = Recognised::of(&[link.into_os_string()], None).unwrap();
        assert_eq!((found.agent, found.word), (Agent::Codex, Some(0)));
    }

    #[test]
    fn what_the_user_says_counts_before_what_is_found() {
        let words = ["claude".into()];
        let found = Recognised::of(&words, Some(Agent::Codex)).unwrap();
        assert_eq!((found.agent, found.word), (Agent::Codex, None));
        let found = Recognised::of(&["make".into()], Some(Agent::Claude)).unwrap();
        assert_eq!((found.agent, found.word), (Agent::Claude, None));
    }
}
