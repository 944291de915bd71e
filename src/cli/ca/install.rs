//! `tidegate ca install`: makes this machine trust the authority, or prints the commands for it.

use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use serde_json::json;

use crate::tls::{self, Bundle, Facts};

use super::super::{Answer, print};
use super::system::System;
use super::{Done, Failed, Known, Which, java, now, trust};

/// The store beside the records.
const USUAL: &str = "-";

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Install {
    #[command(flatten)]
    which: Which,
    /// Only write one file with the system's roots and the authority, for programs that take one.
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// Only add the authority to a key store of Java; if there is none, to a copy of Java's own.
    /// Without a path, to the store that `tidegate env` and `tidegate exec` configure for Java.
    #[arg(long, value_name = "KEYSTORE", num_args = 0..=1, default_missing_value = USUAL)]
    java: Option<PathBuf>,
}

impl Install {
    pub(super) fn perform(&self) -> Done {
        let known = self.which.known()?;
        let current = known.current()?;
        let mut published = known.former(&current, now());
        published.insert(0, current);
        let only = self.bundle.is_some() || self.java.is_some();
        if let Some(file) = &self.bundle {
            let ours = published.iter().map(|it| it.der.as_slice());
            let usual = trust::usual().filter(|usual| usual != file);
            tls::replace(file, &tls::whole(ours, usual.as_deref())?, 0o644)?;
            self.say("bundle", file);
        }
        if let Some(store) = &self.java {
            let store = if store.as_os_str() == USUAL {
                folder(&known)?.java
            } else {
                store.clone()
            };
            java::add(&store, &published)?;
            self.say("java", &store);
        }
        if only {
            return Ok(Answer::Yes);
        }
        self.system(&known, &published)
    }

    fn system(&self, known: &Known, published: &[Facts]) -> Done {
        let Some(system) = System::here() else {
            let why = "the trust store of this system is unknown: see the manual of your \
                       system, or use --bundle FILE";
            return Err(Failed {
                answer: Answer::Failed,
                why: why.to_owned(),
            });
        };
        if !geteuid().is_root() {
            print::err("tidegate: only root can change what the system trusts; run this:\n");
            print::out(&system.commands(published));
            return Ok(Answer::No);
        }
        system.install(published)?;
        for facts in published {
            self.say("installed", &system.file(facts));
        }
        if !self.which.json {
            let files = folder(known).ok();
            print::out(&trust::needs(files.as_ref()));
        }
        Ok(Answer::Yes)
    }

    fn say(&self, what: &str, file: &Path) {
        if self.which.json {
            print::json(&json!({ what: file }));
        } else {
            print::out(&format!("{what}: {}\n", file.display()));
        }
    }
}

/// Returns the bundle files beside the records.
fn folder(known: &Known) -> Result<Bundle, Failed> {
    let record = known
        .config
        .as_ref()
        .and_then(|it| it.record.file.as_deref());
    let folder = record.and_then(Path::parent);
    folder
        .map(Bundle::in_folder)
        .ok_or_else(|| Failed::wrong("no configuration names the record file: give the file"))
}
