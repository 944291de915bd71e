//! The proxies that are measured, as `peers.toml` lists them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::figures::Mode;

/// How many rules tidegate has in the configuration that is measured.
const RULES: usize = 1_000;

#[derive(Deserialize)]
pub struct Peers {
    pub peer: Vec<Peer>,
}

/// One proxy. `{scratch}`, `{certificates}`, `{compare}`, `{built}` and `{tidegate}` stand for places, in
/// commands and in configurations; `{rules}` for the rules, in configurations.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    pub name: String,
    pub port: u16,
    pub command: Vec<String>,
    /// Prints what it is; the first line is kept.
    #[serde(default)]
    pub version: Vec<String>,
    /// A file beside `peers.toml`, which goes into `{scratch}`.
    pub config: Option<String>,
    pub modes: Vec<Mode>,
}

/// The places that configurations name.
pub struct Places {
    pub scratch: PathBuf,
    pub certificates: PathBuf,
    pub compare: PathBuf,
    pub built: PathBuf,
    pub tidegate: PathBuf,
}

impl Places {
    /// `text` with the places in it.
    pub fn fill(&self, text: &str) -> String {
        let places = [
            ("{scratch}", &self.scratch),
            ("{certificates}", &self.certificates),
            ("{compare}", &self.compare),
            ("{built}", &self.built),
            ("{tidegate}", &self.tidegate),
        ];
        places.iter().fold(text.to_owned(), |text, (name, path)| {
            text.replace(name, &path.to_string_lossy())
        })
    }
}

/// Rules for hosts that no request is for.
fn rules() -> String {
    (1..RULES)
        .map(|it| format!("[[rule]]\nid = \"other-{it}\"\nverdict = \"allow\"\nto.hosts = [\"host-{it}.example.com\"]\n\n"))
        .collect()
}

impl Peers {
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not as it should be", path.display()))
    }
}

impl Peer {
    /// The command that starts it; its configuration is written first.
    pub fn prepare(&self, folder: &Path, places: &Places) -> Result<Vec<String>> {
        if let Some(name) = &self.config {
            let text = fs::read_to_string(folder.join(name))
                .with_context(|| format!("cannot read {name}"))?;
            let file = places
                .scratch
                .join(Path::new(name).file_name().context("no name")?);
            fs::write(file, places.fill(&text).replace("{rules}", &rules()))?;
        }
        Ok(self.command.iter().map(|it| places.fill(it)).collect())
    }

    /// Whether its program is on this machine.
    pub fn is_installed(&self, places: &Places) -> bool {
        let program = self
            .command
            .first()
            .map(|it| places.fill(it))
            .unwrap_or_default();
        if program.contains('/') {
            return Path::new(&program).exists();
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(&program).exists())
    }

    /// The first line of what it says of its version.
    pub fn version(&self, places: &Places) -> String {
        let words: Vec<String> = self.version.iter().map(|it| places.fill(it)).collect();
        let Some((program, arguments)) = words.split_first() else {
            return String::new();
        };
        let Ok(output) = Command::new(program).args(arguments).output() else {
            return String::new();
        };
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text)
            .lines()
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    /// SHA-256 of its configuration as it lies beside `peers.toml`.
    pub fn digests(&self, folder: &Path, digests: &mut BTreeMap<String, String>) {
        let Some(name) = &self.config else {
            return;
        };
        if let Ok(output) = Command::new("sha256sum").arg(folder.join(name)).output() {
            let digest = String::from_utf8_lossy(&output.stdout)
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned();
            digests.insert(name.clone(), digest);
        }
    }
}
