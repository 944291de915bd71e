//! `tidegate ca init` and `tidegate ca rotate`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::config;
use crate::tls::{self, Facts, NewAuthority};

use super::super::{Answer, print};
use super::{Done, Failed, Known, Which, as_json, now, summary};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Init {
    #[command(flatten)]
    which: Which,
    /// Overwrite existing files: clients that trust the old authority do not trust the new one.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Rotate {
    #[command(flatten)]
    which: Which,
}

impl Init {
    pub(super) fn perform(&self) -> Done {
        let known = self.which.known()?;
        let key = key_of(&known)?;
        let there = [&known.cert, key]
            .into_iter()
            .find(|it| it.symlink_metadata().is_ok());
        if let Some(there) = there.filter(|_| !self.force) {
            return Err(Failed::wrong(format!(
                "{} is there already: `tidegate ca rotate` makes a new authority and keeps the \
                 old one trusted; --force writes over it",
                there.display()
            )));
        }
        let new = new(&known)?;
        for folder in [known.cert.parent(), key.parent()].into_iter().flatten() {
            fs::create_dir_all(folder)?;
        }
        if self.force {
            tls::replace(key, &new.key, 0o600)?;
            tls::replace(&known.cert, &new.cert, 0o644)?;
        } else {
            tls::create(key, &new.key, 0o600)?;
            tls::create(&known.cert, &new.cert, 0o644).inspect_err(|_| {
                // A key without its certificate would make the next attempt fail.
                let _ = fs::remove_file(key);
            })?;
        }
        say(&known, &new, None, self.which.json);
        if !known.configured {
            print::err(&format!(
                "tidegate: name it in `[inspect]`: ca-cert = \"{}\", ca-key = \"{}\"\n",
                known.cert.display(),
                key.display()
            ));
        }
        Ok(Answer::Yes)
    }
}

impl Rotate {
    pub(super) fn perform(&self) -> Done {
        let known = self.which.known()?;
        let key = key_of(&known)?;
        let current = known.current().map_err(|failed| {
            Failed::wrong(format!(
                "{}; `tidegate ca init` makes the first one",
                failed.why
            ))
        })?;
        let former = known.former(&current, now());
        let new = new(&known)?;
        let kept = [&current].into_iter().chain(&former);
        let kept = kept
            .filter(|it| it.not_after > now())
            .map(|it| it.der.as_slice());
        // With this order, no client gets a certificate whose authority is not published.
        tls::replace(&known.previous, &tls::pem(kept), 0o644)?;
        tls::replace(key, &new.key, 0o600)?;
        tls::replace(&known.cert, &new.cert, 0o644)?;
        say(&known, &new, Some(&known.previous), self.which.json);
        if !lists(&known) {
            print::err(&format!(
                "tidegate: write previous = [\"{}\"] in `[inspect]`: without it, clients that trust \
                 only the old one fail\n",
                known.previous.display()
            ));
        }
        print::err(
            "tidegate: run `tidegate ca install` wherever the old one is trusted; a running gate \
             uses the new one within seconds\n",
        );
        Ok(Answer::Yes)
    }
}

fn key_of(known: &Known) -> Result<&PathBuf, Failed> {
    let missing = || Failed::wrong("the key file is missing: add --key FILE");
    known.key.as_ref().ok_or_else(missing)
}

/// Whether the configuration names the file of former certificates.
fn lists(known: &Known) -> bool {
    let written = known
        .config
        .as_ref()
        .and_then(|it| it.inspect.authority.as_ref());
    written.is_some_and(|it| known.configured && it.previous.contains(&known.previous))
}

/// Makes an authority for the inspected names.
fn new(known: &Known) -> Result<NewAuthority, Failed> {
    if known.names.is_empty() {
        return Err(Failed::wrong(
            "the policy inspects nothing, so there is nothing to sign for: write `hosts` in \
             `[inspect]`, or `inspect = true` in a rule, and say --config FILE",
        ));
    }
    if known.names.everything {
        print::err(
            "tidegate: WARNING: the policy inspects everything in some tier, so this authority is \
             not limited:\ntidegate: WARNING: a thief of its key can pass for every server to \
             each client that trusts it\n",
        );
    }
    NewAuthority::make(&known.names, now()).map_err(|error| Failed {
        answer: Answer::Failed,
        why: error.to_string(),
    })
}

fn say(known: &Known, new: &NewAuthority, previous: Option<&Path>, as_object: bool) {
    let Some(facts) = Facts::of_pem(&new.cert).into_iter().next() else {
        return;
    };
    if as_object {
        print::json(&json!({
            "certificate": known.cert,
            "key": known.key,
            "previous": previous,
            "authority": as_json(&facts),
        }));
        return;
    }
    print::out(&summary(&known.cert.display().to_string(), &facts));
    if let Some(previous) = previous {
        let count = Facts::of_pem(&config::read(previous).unwrap_or_default()).len();
        print::out(&format!(
            "{}\n  {count} former, still published\n",
            previous.display()
        ));
    }
}
