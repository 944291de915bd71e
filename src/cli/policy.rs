//! `tidegate policy`: the policies that a gate had in force.

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::json;

use crate::app::{CopyError, PolicyCopies};
use crate::config;

use super::diff::Diff;
use super::{Answer, load, print};

#[derive(Debug, clap::Subcommand)]
pub(super) enum PolicyVerb {
    /// List the policies that were in force, the last 50, newest first.
    List(List),
    /// Print a policy that was in force.
    Show(Show),
    /// Compare two policies that were in force.
    Diff(Compare),
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    place: Place,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// The beginning of its digest (`tidegate.policy.copy` of a record).
    digest: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
pub(super) struct Compare {
    /// The beginning of the digest of the first policy.
    before: String,
    /// The beginning of the digest of the second.
    after: String,
    #[command(flatten)]
    place: Place,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The configuration, which names the records [default: `$TIDEGATE_CONFIG`,
    /// /etc/tidegate/tidegate.toml, ~/.config/tidegate/tidegate.toml, the built-in policy].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl PolicyVerb {
    pub(super) fn perform(self) -> Answer {
        match self {
            Self::List(list) => list.perform(),
            Self::Show(show) => show.perform(),
            Self::Diff(compare) => compare.perform(),
        }
    }
}

impl List {
    fn perform(&self) -> Answer {
        let copies = match self.place.copies(self.json) {
            Ok(copies) => copies,
            Err(answer) => return answer,
        };
        let copies = match copies.list() {
            Ok(copies) => copies,
            Err(error) => return trouble(&error.into()),
        };
        let when = |at| Timestamp::try_from(at).map_or(String::new(), |at| at.to_string());
        if self.json {
            let all = copies.iter().map(|copy| {
                json!({ "digest": copy.digest, "loaded": when(copy.loaded), "file": copy.file })
            });
            print::json(&all.collect::<Vec<_>>());
        } else {
            let lines = copies.iter().map(|copy| {
                let digest = copy.digest.get(..16).unwrap_or_default();
                format!("{digest}  loaded {}\n", when(copy.loaded))
            });
            print::out(&lines.collect::<String>());
        }
        Answer::Yes
    }
}

impl Show {
    fn perform(&self) -> Answer {
        let copies = match self.place.copies(true) {
            Ok(copies) => copies,
            Err(answer) => return answer,
        };
        match copies.find(&self.digest) {
            Ok((_, text)) => {
                print::out(&text);
                Answer::Yes
            }
            Err(error) => trouble(&error),
        }
    }
}

impl Compare {
    fn perform(self) -> Answer {
        let copies = match self.place.copies(true) {
            Ok(copies) => copies,
            Err(answer) => return answer,
        };
        let both = [&self.before, &self.after].map(|digest| copies.find(digest));
        match both {
            [Ok((before, _)), Ok((after, _))] => {
                let files = [before.file, after.file].map(|file| file.display().to_string());
                Diff::of_files(files, self.json).perform()
            }
            [Err(error), _] | [_, Err(error)] => trouble(&error),
        }
    }
}

impl Place {
    fn copies(&self, quiet: bool) -> Result<PolicyCopies, Answer> {
        let discovered = load::find(self.config.as_deref(), quiet);
        let config = match discovered.path() {
            Some(path) => config::load(path).0,
            None => Some(config::embedded()),
        };
        let Some(config) = config else {
            print::err("tidegate: the configuration does not load: see `tidegate check`\n");
            return Err(Answer::Wrong);
        };
        PolicyCopies::beside(&config.record).ok_or_else(|| {
            print::err("tidegate: records go to standard output here: no policies are kept\n");
            Answer::Wrong
        })
    }
}

fn trouble(error: &CopyError) -> Answer {
    print::err(&format!("tidegate: {error}\n"));
    match error {
        CopyError::Name(..) => Answer::Wrong,
        CopyError::Changed(_) => Answer::No,
        CopyError::Io(_) => Answer::Failed,
    }
}
