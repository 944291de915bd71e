//! The evidence of the folder that a command works in: its working copy and its pin.

use std::path::{Path, PathBuf};

use crate::clock::Clock;
use crate::config::Workspaces;
use crate::gate::{Gate, Workplace};
use crate::identity::{RepositoryBasis, RepositorySaid, Trust};
use crate::record::{Event, SessionFacts};
use crate::vcs::{self, By, PinError, Pins, WorkingCopy};

use super::super::print;

/// The evidence of a command's folder.
#[derive(Debug, Default)]
pub(super) struct FolderEvidence {
    /// The facts of its working copy.
    pub(super) copy: WorkingCopy,
    /// The part that is sent to the gate.
    pub(super) workplace: Workplace,
    /// The folder, without symbolic links.
    folder: Option<PathBuf>,
    /// The file of pins, if this is the first use.
    first_use: Option<PathBuf>,
    /// The contradiction to its pin.
    against: Option<PinError>,
}

impl FolderEvidence {
    /// Reads the working copy of a folder; reads `workspaces` and pins if this process is the gate.
    /// A pin is evidence only if the command cannot change it: in a jail.
    pub(super) fn at(folder: &Path, workspaces: Option<&Workspaces>, jailed: bool) -> Self {
        let mut found = Self {
            copy: vcs::working_copy(folder),
            folder: folder.canonicalize().ok(),
            ..Self::default()
        };
        if let (Some(folder), Some(workspaces)) = (found.folder.clone(), workspaces)
            && workspaces.repository_of(&folder).is_none()
        {
            found.against = found.hold_against_pin(&folder, jailed).err();
        }
        found
    }

    fn hold_against_pin(&mut self, folder: &Path, jailed: bool) -> Result<(), PinError> {
        let Some(file) = vcs::default_file() else {
            return Ok(());
        };
        let pins = Pins::read(&file)?;
        let pinned = pins.of(folder, &self.copy)?;
        let above = pinned.above.iter().map(|pin| pin.repository.clone());
        self.workplace.hints = above.collect();
        if let Some(pin) = pinned.own {
            let evidence = jailed && pin.by == By::Operator;
            let trust = if evidence {
                Trust::Verified
            } else {
                Trust::Asserted
            };
            self.workplace.pin = Some((pin.repository.clone(), trust));
        } else {
            self.first_use = Some(file);
        }
        Ok(())
    }

    /// Returns the folder in the form that is sent to a gate.
    pub(super) fn folder(&self) -> Option<String> {
        let text = self.folder.as_deref()?.to_str()?;
        (!text.chars().any(char::is_control)).then(|| text.to_owned())
    }

    /// Prints ignored evidence, and records a contradiction to the pin. `true` if no session may be
    /// started.
    pub(super) fn refuses(&self, gate: &Gate, session: &str) -> bool {
        if let Some(foreign) = &self.copy.foreign {
            print::err(&format!(
                "tidegate: {}\n",
                print::clean(&foreign.to_string(), 1000)
            ));
        }
        let Some(against) = &self.against else {
            return false;
        };
        print::err(&format!(
            "tidegate: {}\n",
            print::clean(&against.to_string(), 10_000)
        ));
        let said = self.copy.repository.as_deref().map(|name| RepositorySaid {
            name: name.into(),
            trust: Trust::Asserted,
            basis: RepositoryBasis::WorkingCopy,
        });
        gate.recorder
            .event(&Event::SessionRefused(Box::new(SessionFacts {
                session: Some(session.into()),
                evidence: "none",
                trust: "none",
                repository: said,
                detail: Some(against.detail().into()),
                ..SessionFacts::default()
            })));
        true
    }

    /// Pins the folder at its first use. A first use is no evidence, so a pin that cannot be
    /// written does not stop the command.
    pub(super) fn remember(&self, clock: &Clock) {
        let (Some(file), Some(top)) = (&self.first_use, &self.copy.top) else {
            return;
        };
        let Some(repository) = &self.copy.repository else {
            return;
        };
        if let Err(error) = Pins::pin(file, top, repository, (By::FirstUse, clock.now())) {
            tracing::debug!(%error, "the working copy is not pinned");
        }
    }
}

/// Returns the folder of the pins, which a jailed command must not see; makes the folder if it is
/// missing, so that the command cannot make it.
pub(super) fn folder_of_pins() -> Option<PathBuf> {
    let folder = vcs::default_file()?.parent()?.to_owned();
    let _ = std::fs::create_dir_all(&folder);
    Some(folder)
}
