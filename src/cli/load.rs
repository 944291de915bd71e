//! A configuration for the commands that only look at one.

use std::path::Path;

use crate::app::{Discovered, Loaded, discover};
use crate::config::{Config, Owners};
use crate::diag::{self, Severity};
use crate::policy::{self, Policy};

use super::print;

impl Loaded {
    /// Loads the configuration that was discovered. What other users could change of its files is a
    /// warning: only a gate refuses it.
    pub(super) fn discovered(discovered: &Discovered) -> Self {
        let owners = Owners::of_this_process().and_services();
        Self::new(discovered.path(), &policy::built_in()).with_exposures(&owners, Severity::Warning)
    }

    /// As [`Loaded::discovered`]; `None` where it does not load, with the findings shown. Warnings
    /// of a configuration that loads are for `tidegate check`. One that only breaks an invariant is
    /// taken as well: its flows are what has to be explained.
    pub(super) fn whole(discovered: &Discovered) -> Option<(Config, Policy)> {
        let loaded = Self::discovered(discovered);
        if loaded.errors().next().is_some() {
            loaded.show();
        }
        Some((loaded.config?, loaded.policy.or(loaded.unproved)?))
    }

    /// Draws the findings on standard error.
    pub(super) fn show(&self) {
        if !self.findings.is_empty() {
            print::err(&diag::render(&self.findings, print::colour()));
        }
    }
}

/// Finds the configuration of a command and says which one it is, unless the output is JSON.
pub(super) fn find(named: Option<&Path>, json: bool) -> Discovered {
    let discovered = discover(named);
    if let Some(line) = discovered.line().filter(|_| !json) {
        print::err(&format!("{line}\n"));
    }
    discovered
}
