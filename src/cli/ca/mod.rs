//! `tidegate ca`: the local authority that signs for inspected destinations.

mod install;
mod java;
mod make;
mod show;
mod system;
mod trust;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::diag::{self, Severity};
use crate::policy::{self, Names};
use crate::tls::Facts;

use super::{Answer, print};

pub(super) use trust::{trusted, usual, variables};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Ca {
    /// Make an authority that can sign only for the names that the policy inspects.
    Init(make::Init),
    /// Show the authority and the names that it can sign for; exit code 1 where the policy inspects
    /// more.
    Show(show::Show),
    /// Make this machine trust the authority, or print the commands; with --bundle or --java, write
    /// one file.
    Install(install::Install),
    /// Make a new authority; callers still trust the former one.
    Rotate(make::Rotate),
}

impl Ca {
    pub(super) fn perform(&self) -> Answer {
        let done = match self {
            Self::Init(init) => init.perform(),
            Self::Show(show) => show.perform(),
            Self::Install(install) => install.perform(),
            Self::Rotate(rotate) => rotate.perform(),
        };
        done.unwrap_or_else(|failed| {
            print::err(&format!("tidegate: {}\n", failed.why));
            failed.answer
        })
    }
}

/// Which authority is meant.
#[derive(Debug, clap::Args)]
struct Which {
    /// The configuration, whose `[inspect]` names the files [default: `$TIDEGATE_CONFIG`,
    /// /etc/tidegate/tidegate.toml, ~/.config/tidegate/tidegate.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The certificate [default: that of the configuration].
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The key of the certificate.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// The failure of a command.
struct Failed {
    answer: Answer,
    why: String,
}

impl Failed {
    fn wrong(why: impl Into<String>) -> Self {
        Self {
            answer: Answer::Wrong,
            why: why.into(),
        }
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self {
            answer: Answer::Failed,
            why: error.to_string(),
        }
    }
}

type Done = Result<Answer, Failed>;

/// The selected authority and its configuration.
struct Known {
    /// The configuration, if there is one.
    config: Option<Config>,
    /// The names that its policy inspects.
    names: Names,
    cert: PathBuf,
    key: Option<PathBuf>,
    /// The file of former certificates, which may not exist yet.
    previous: PathBuf,
    /// Whether the configuration names these files.
    configured: bool,
}

impl Which {
    fn known(&self) -> Result<Known, Failed> {
        let path = self.config.clone();
        // A certificate given by its path needs no configuration.
        let discovered = || super::load::find(None, self.json).path;
        let path = path.or_else(|| self.cert.is_none().then(discovered)?);
        let (config, names) = match &path {
            Some(path) => load(path)?,
            None => (None, Names::default()),
        };
        let written = config.as_ref().and_then(|it| it.inspect.authority.as_ref());
        let here = |said: Option<&PathBuf>, wanted: &Option<PathBuf>| {
            wanted.is_none() || said.map(|it| real(it)) == wanted.as_deref().map(real)
        };
        let configured = written.is_some()
            && here(written.map(|it| &it.cert), &self.cert)
            && here(written.map(|it| &it.key), &self.key);
        let cert = self.cert.clone().or(written.map(|it| it.cert.clone()));
        let cert = cert.ok_or_else(|| {
            Failed::wrong(
                "no authority is named: write `ca-cert` and `ca-key` in `[inspect]`, or say \
                 --cert FILE --key FILE",
            )
        })?;
        let key = self.key.clone().or_else(|| Some(written?.key.clone()));
        let previous = written
            .filter(|_| configured)
            .and_then(|it| it.previous.first());
        Ok(Known {
            previous: previous.cloned().unwrap_or_else(|| beside(&cert)),
            names,
            cert,
            key,
            configured,
            config,
        })
    }
}

impl Known {
    /// Returns the current certificate; the error is the reason why there is none.
    fn current(&self) -> Result<Facts, Failed> {
        let text = config::read(&self.cert)?;
        Facts::of_pem(&text).into_iter().next().ok_or_else(|| {
            Failed::wrong(format!(
                "{}: there is no certificate in it",
                self.cert.display()
            ))
        })
    }

    /// Returns the former certificates that are still valid, without the current one.
    fn former(&self, current: &Facts, now: Timestamp) -> Vec<Facts> {
        let listed = self
            .config
            .as_ref()
            .and_then(|it| it.inspect.authority.as_ref());
        let listed = listed
            .filter(|_| self.configured)
            .map(|it| it.previous.as_slice());
        let alone = [self.previous.clone()];
        let mut former: Vec<Facts> = Vec::new();
        for file in listed.filter(|it| !it.is_empty()).unwrap_or(&alone) {
            for facts in Facts::of_pem(&config::read(file).unwrap_or_default()) {
                let known = facts.der == current.der || former.iter().any(|it| it.der == facts.der);
                if !known && facts.not_after > now {
                    former.push(facts);
                }
            }
        }
        former
    }
}

/// Loads a configuration whose authority may not exist yet.
fn load(path: &Path) -> Result<(Option<Config>, Names), Failed> {
    let (config, mut findings) = config::load(path);
    let mut names = Names::default();
    if let Some(config) = &config {
        let (policy, more) = policy::compile(&config.policy, &policy::built_in());
        findings.extend(more);
        names = policy.map(|it| it.inspected_names()).unwrap_or_default();
    }
    findings.retain(|finding| finding.severity == Severity::Error);
    if findings.is_empty() {
        return Ok((config, names));
    }
    print::err(&diag::render(&findings, print::colour()));
    Err(Failed::wrong(format!("{} does not load", path.display())))
}

fn real(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Returns the file for former certificates if no configuration names one.
fn beside(cert: &Path) -> PathBuf {
    let stem = cert.file_stem().unwrap_or_default().to_string_lossy();
    cert.with_file_name(format!("{stem}-previous.pem"))
}

fn now() -> Timestamp {
    Clock::system().now()
}

/// Maximum number of names in a summary.
const MAX_NAMES: usize = 8;

/// Summarises a certificate in a few lines: of many names, the first ones and their number.
fn summary(title: &str, facts: &Facts) -> String {
    let all = facts.permitted.len();
    if all <= MAX_NAMES {
        return lines(title, facts);
    }
    let mut short = facts.clone();
    short.permitted.truncate(MAX_NAMES);
    let next = "tidegate ca show";
    format!(
        "{}               and {} more, {all} in all: `{next}` lists them\n",
        lines(title, &short),
        all - MAX_NAMES
    )
}

/// Formats the content of a certificate as lines.
fn lines(title: &str, facts: &Facts) -> String {
    let permitted = match facts.permitted.as_slice() {
        [] => "EVERYTHING: it is not limited".to_owned(),
        list => wrapped(list),
    };
    format!(
        "{title}\n  subject      {}\n  SHA-256      {}\n  valid        {} to {}\n  signs for    {}\n",
        print::clean(&facts.subject, 200),
        facts.fingerprint,
        facts.not_before.strftime("%F"),
        facts.not_after.strftime("%F"),
        permitted
    )
}

/// Wraps names to lines of limited width.
fn wrapped(names: &[String]) -> String {
    const INDENT: usize = 15;
    let mut text = String::new();
    let mut at = INDENT;
    for name in names {
        let name = print::clean(name, 253);
        if !text.is_empty() {
            text.push(',');
            if at + name.len() + 2 > print::WIDTH {
                text.push_str("\n              ");
                at = INDENT;
            }
            text.push(' ');
        }
        at += name.len() + 2;
        text.push_str(&name);
    }
    text
}

fn as_json(facts: &Facts) -> Value {
    json!({
        "subject": facts.subject,
        "fingerprint": facts.fingerprint,
        "not_before": facts.not_before,
        "not_after": facts.not_after,
        "permitted": facts.permitted,
        "excluded": facts.excluded,
    })
}
