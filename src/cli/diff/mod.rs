//! `tidegate diff`: compares two policies.

mod render;
mod replayed;
mod sections;
mod side;

use std::str::FromStr;

use serde_json::{Value, json};

use crate::policy::{self, Change, Difference, Relation};

use super::{Answer, print};

use render::Shown;
use replayed::Replayed;
use side::{Side, SideError};

#[derive(Debug, clap::Args)]
pub(super) struct Diff {
    /// Two policies: files, folders with a tidegate.toml, or `REV:PATH` of this git repository; or
    /// one range of revisions: `main..HEAD`, `main...HEAD` (from the best common ancestor).
    #[arg(value_name = "POLICY", required = true, num_args = 1..=2)]
    policies: Vec<String>,
    /// The file in the commits, from the top of the repository [default: tidegate.toml].
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Exit with 1 unless the second policy is `equal`, `narrower` (no flow reaches more), or
    /// `no-wider-in=TIER` (no flow of callers that are or were in that tier does). None holds where
    /// an exception is new.
    #[arg(long, value_name = "WHAT")]
    require: Option<Requirement>,
    /// Also list the changes for flows on record: of a period (`14d`), of a file of records, or
    /// both. May be repeated [without a file: the log of the first policy, and its rotated
    /// files].
    #[arg(long, value_name = "PERIOD|RECORDS")]
    replay: Vec<String>,
    /// The format of the output.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        conflicts_with = "json"
    )]
    format: Format,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The format of the output.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// For a terminal.
    Text,
    /// For a comment on a pull request.
    Markdown,
    /// Annotations of GitHub Actions.
    Github,
}

/// The required relation of the second policy.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Requirement {
    Equal,
    Narrower,
    NoWiderIn(String),
}

impl FromStr for Requirement {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.strip_prefix("no-wider-in=")) {
            ("equal", _) => Ok(Self::Equal),
            ("narrower", _) => Ok(Self::Narrower),
            (_, Some(tier)) if !tier.is_empty() => Ok(Self::NoWiderIn(tier.to_owned())),
            _ => Err("write `equal`, `narrower` or `no-wider-in=TIER`"),
        }
    }
}

impl Requirement {
    /// Returns the change that breaks the requirement.
    fn broken_by<'d>(&self, difference: &'d Difference) -> Option<&'d Change> {
        let mut changes = difference.changes.iter();
        match self {
            Self::Equal => changes.next(),
            Self::Narrower => changes.find(|change| change.widens),
            Self::NoWiderIn(tier) => changes.find(|change| {
                let mut tiers = change.tiers.iter().chain(&change.tiers_before);
                change.widens && tiers.any(|it| **it == **tier)
            }),
        }
    }

    fn as_words(&self) -> String {
        match self {
            Self::Equal => "equal".to_owned(),
            Self::Narrower => "narrower".to_owned(),
            Self::NoWiderIn(tier) => format!("no-wider-in={tier}"),
        }
    }
}

impl Diff {
    /// A comparison of two files, printed as text or JSON.
    pub(super) fn of_files(files: [String; 2], json: bool) -> Self {
        Self {
            policies: files.into(),
            path: None,
            require: None,
            replay: Vec::new(),
            format: Format::Text,
            json,
        }
    }

    /// Success, unless a requirement does not hold.
    pub(super) fn perform(self) -> Answer {
        let places = match side::places(&self.policies, self.path.as_deref()) {
            Ok(places) => places,
            Err(text) => return say(Answer::Wrong, &text),
        };
        let catalogue = policy::built_in();
        let [before, after] = places.map(|place| Side::read(&place, &catalogue));
        let (before, after) = match (before, after) {
            (Ok(before), Ok(after)) => (before, after),
            (Err(error), _) | (_, Err(error)) => return trouble(&error),
        };
        if let Some(Requirement::NoWiderIn(tier)) = &self.require
            && after.policy.tier(tier).is_none()
        {
            let text = format!("--require no-wider-in={tier}: the second policy has no such tier");
            return say(Answer::Wrong, &text);
        }
        let replayed = match self.replay.as_slice() {
            [] => None,
            words => match Replayed::read(words, &before, &after) {
                Ok(replayed) => Some(replayed),
                Err((answer, text)) => return say(answer, &text),
            },
        };
        let mut difference = policy::difference(&before.policy, &after.policy);
        for change in &mut difference.changes {
            change.before.location = before.rename(&change.before.location).into();
            change.after.location = after.rename(&change.after.location).into();
            if let Some(file) = &after.file {
                let file = crate::diag::shell_word(&file.display().to_string());
                change.witness.command.push_str(" --config ");
                change.witness.command.push_str(&file);
            }
        }
        let others = sections::not_compared(&before, &after);
        let exceptions = sections::widened_exceptions(&before, &after);
        difference.not_compared.extend(exceptions);
        let required = self.require.as_ref().map(|requirement| {
            let broken = requirement.broken_by(&difference);
            let loses_exceptions = others.iter().any(|name| name == "exception");
            let holds = broken.is_none()
                && difference.not_compared.is_empty()
                && !(loses_exceptions && *requirement == Requirement::Equal);
            (requirement.as_words(), holds, broken)
        });
        let shown = Shown {
            before: &before,
            after: &after,
            difference: &difference,
            others: &others,
            replayed: replayed.as_ref(),
            required: required
                .as_ref()
                .map(|(words, holds, broken)| (words.as_str(), *holds, *broken)),
        };
        if self.json {
            print::json(&as_json(&shown));
        } else {
            print::out(&match self.format {
                Format::Text => shown.text(),
                Format::Markdown => shown.markdown(),
                Format::Github => shown.github(),
            });
        }
        Answer::whether(required.is_none_or(|(_, holds, _)| holds))
    }
}

fn say(answer: Answer, text: &str) -> Answer {
    print::err(&format!("tidegate: {text}\n"));
    answer
}

fn trouble(error: &SideError) -> Answer {
    match error {
        SideError::Wrong(text) => say(Answer::Wrong, text),
        SideError::Findings(text) => {
            print::err(text);
            say(
                Answer::Wrong,
                "a policy that does not load cannot be compared",
            )
        }
        SideError::Git(error) => say(Answer::Failed, &error.to_string()),
    }
}

fn as_json(shown: &Shown<'_>) -> Value {
    let side = |side: &Side| json!({ "policy": side.label, "digest": side.digest });
    json!({
        "before": side(shown.before),
        "after": side(shown.after),
        "relation": shown.difference.relation,
        "changes": shown.difference.changes,
        "not_compared": shown.difference.not_compared,
        "other_sections": shown.others,
        "replay": shown.replayed.map(Replayed::as_json),
        "required": shown.required.map(|(words, holds, broken)| json!({
            "what": words,
            "holds": holds,
            "counterexample": broken.map(|change| &change.witness),
        })),
    })
}

/// Returns the relation as a sentence about the second policy.
fn relation(relation: Relation) -> &'static str {
    match relation {
        Relation::Equal => "equal: every flow is decided alike",
        Relation::Narrower => "narrower: no flow reaches more, some reach less",
        Relation::Wider => "wider: no flow reaches less, some reach more",
        Relation::Both => "both: some flows reach more, some less",
        Relation::SameReach => "same reach: every flow reaches the same, in another way",
    }
}
