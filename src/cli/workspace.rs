//! `tidegate workspace`: the operator sets which repository a working copy belongs to.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::clock::Clock;
use crate::vcs::{self, By, Pin, PinError, Pins};

use super::{Answer, print};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Workspace {
    /// Pin the working copy of a folder to the repository that it says now.
    Pin(PinFolder),
    /// List the pins.
    List(List),
    /// Remove the pin of a folder.
    Forget(Forget),
}

#[derive(Debug, clap::Args)]
pub(super) struct PinFolder {
    /// The folder [default: the current one].
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Print a JSON list.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Forget {
    /// The pinned folder.
    path: PathBuf,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// Why the command did nothing.
struct Failure(Answer, String);

impl From<PinError> for Failure {
    fn from(error: PinError) -> Self {
        let answer = match error {
            PinError::File { .. } | PinError::Full(_) => Answer::Failed,
            PinError::Unsound { .. } | PinError::Changed { .. } | PinError::Replaced { .. } => {
                Answer::Wrong
            }
        };
        Self(answer, error.to_string())
    }
}

impl Workspace {
    pub(super) fn perform(&self) -> Answer {
        let done = match self {
            Self::Pin(pin) => pin.perform(),
            Self::List(list) => list.perform(),
            Self::Forget(forget) => forget.perform(),
        };
        done.unwrap_or_else(|Failure(answer, why)| {
            print::err(&format!("tidegate: {}\n", print::clean(&why, 10_000)));
            answer
        })
    }
}

impl PinFolder {
    fn perform(&self) -> Result<Answer, Failure> {
        let copy = vcs::working_copy(&self.path);
        let wrong = |why: String| Failure(Answer::Wrong, format!("{}: {why}", self.path.display()));
        if let Some(foreign) = &copy.foreign {
            return Err(wrong(foreign.to_string()));
        }
        let (Some(top), Some(repository)) = (&copy.top, &copy.repository) else {
            let why = "no git working copy with a remote is there: run `git remote -v`";
            return Err(wrong(why.to_owned()));
        };
        let file = file()?;
        // A contradicting pin has to be removed first.
        Pins::read(&file)?.of(top, &copy)?;
        let now = Clock::system().now();
        let pin = Pins::pin(&file, top, repository, (By::Operator, now))?;
        if self.json {
            print::json(&shown(&pin));
        } else {
            print::out(&line(&pin));
        }
        Ok(Answer::Yes)
    }
}

impl List {
    fn perform(&self) -> Result<Answer, Failure> {
        let pins = Pins::read(&file()?)?;
        if self.json {
            print::json(&pins.iter().map(shown).collect::<Vec<_>>());
        } else {
            print::out(&pins.iter().map(line).collect::<String>());
        }
        Ok(Answer::Yes)
    }
}

impl Forget {
    fn perform(&self) -> Result<Answer, Failure> {
        let file = file()?;
        let folder = whole(&self.path);
        let forgotten = Pins::forget(&file, &folder)?;
        if self.json {
            print::json(&json!({ "path": folder, "forgotten": forgotten.as_ref().map(shown) }));
        }
        if forgotten.is_none() {
            let known = "`tidegate workspace list` shows the pins";
            let why = format!("{} is not pinned: {known}", folder.display());
            return Err(Failure(Answer::No, why));
        }
        Ok(Answer::Yes)
    }
}

fn file() -> Result<PathBuf, Failure> {
    vcs::default_file().ok_or_else(|| {
        let why = "no state folder is known: set HOME or XDG_STATE_HOME";
        Failure(Answer::Wrong, why.to_owned())
    })
}

/// Returns the path without symbolic links if the folder exists, otherwise the absolute path.
fn whole(path: &Path) -> PathBuf {
    let plain = || std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.canonicalize().unwrap_or_else(|_| plain())
}

fn by(pin: &Pin) -> &'static str {
    match pin.by {
        By::FirstUse => "first-use",
        By::Operator => "operator",
    }
}

fn line(pin: &Pin) -> String {
    let path = pin.path.display().to_string();
    format!(
        "{}  {}  {}\n",
        print::clean(&path, 4096),
        print::clean(&pin.repository, 1024),
        by(pin)
    )
}

fn shown(pin: &Pin) -> Value {
    json!({
        "path": pin.path,
        "repository": pin.repository,
        "by": by(pin),
        "at": pin.at.to_string(),
    })
}
