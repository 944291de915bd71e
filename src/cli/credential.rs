//! `tidegate credential`: hashes a credential for use in a rule.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::config::{self, CredentialKey};
use crate::diag::{self, Severity};

use super::{Answer, load, print};

/// Maximum length of a credential, in bytes.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Credential {
    /// Read a credential from standard input, and print its hash for `credentials` of a rule.
    Hash(Hash),
}

#[derive(Debug, clap::Args)]
pub(super) struct Hash {
    /// The configuration, whose `[inspect]` names the `credential-key` [default: `$TIDEGATE_CONFIG`,
    /// /etc/tidegate/tidegate.toml, ~/.config/tidegate/tidegate.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl Credential {
    pub(super) fn perform(&self) -> Answer {
        let Self::Hash(hash) = self;
        let done = hash.hash();
        match done {
            Ok(text) if hash.json => print::json(&json!({ "credential": text })),
            Ok(text) => print::out(&format!("{text}\n")),
            Err((answer, why)) => {
                print::err(&format!("tidegate: {why}\n"));
                return answer;
            }
        }
        Answer::Yes
    }
}

impl Hash {
    fn hash(&self) -> Result<Box<str>, (Answer, String)> {
        let wrong = |why: &str| (Answer::Wrong, why.to_owned());
        let path = load::find(self.config.as_deref(), self.json).path;
        let path = path.ok_or_else(|| wrong("there is no configuration: add --config FILE"))?;
        let key = key_of(&path)?;
        let secret = read(io::stdin().lock());
        let secret = secret.map_err(|error| (Answer::Failed, error.to_string()))?;
        if secret.is_empty() {
            return Err(wrong("standard input holds no credential"));
        }
        if secret.iter().any(u8::is_ascii_control) {
            return Err(wrong("standard input holds more than one line"));
        }
        Ok(key.hash(&secret))
    }
}

/// Returns the key that a configuration names.
fn key_of(path: &Path) -> Result<CredentialKey, (Answer, String)> {
    let (config, findings) = config::load(path);
    let Some(config) = config else {
        let findings: Vec<_> = findings
            .into_iter()
            .filter(|finding| finding.severity == Severity::Error)
            .collect();
        print::err(&diag::render(&findings, print::colour()));
        return Err((Answer::Wrong, format!("{} is wrong", path.display())));
    };
    config.inspect.credential_key.ok_or_else(|| {
        let why = format!(
            "{} names no key: write `credential-key = \"credentials.key\"` in [inspect]",
            path.display()
        );
        (Answer::Wrong, why)
    })
}

/// Reads one credential, without the blanks and the line end around it.
fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.take(MAX_SECRET_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_SECRET_BYTES {
        return Err(io::Error::other(
            "standard input is too long for a credential",
        ));
    }
    Ok(text.trim_ascii().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_line_is_no_part_of_a_credential() {
        assert_eq!(read(&b" sesame\r\n"[..]).unwrap(), b"sesame");
        let long = vec![b'a'; 70_000];
        assert!(read(&long[..]).is_err());
    }
}
