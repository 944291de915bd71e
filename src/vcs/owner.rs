//! The required owner of a working copy, as in git (`safe.directory`).

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The users whose working copies are accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Owners(Vec<u32>);

/// A part of a working copy that another user owns.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Foreign {
    /// The folder or file.
    pub path: PathBuf,
    /// The number of the user who owns it.
    pub owner: u32,
    /// The number of the user who should own it.
    pub user: u32,
}

impl Owners {
    /// Returns the user of this process; for root also the user who ran `sudo`.
    #[expect(
        clippy::disallowed_methods,
        reason = "git reads this variable for the same purpose"
    )]
    pub fn of_this_process() -> Self {
        let user = rustix::process::geteuid().as_raw();
        let sudo = std::env::var("SUDO_UID").ok();
        let sudo = sudo.filter(|_| user == 0).and_then(|uid| uid.parse().ok());
        Self([user].into_iter().chain(sudo).collect())
    }

    /// Returns one user.
    #[cfg(test)]
    pub(super) fn only(user: u32) -> Self {
        Self(vec![user])
    }

    /// Checks that each of these paths that exists belongs to one of the users: both a symbolic
    /// link and its target.
    pub(super) fn check<'p>(
        &self,
        paths: impl IntoIterator<Item = &'p Path>,
    ) -> Result<(), Foreign> {
        for path in paths {
            for metadata in [path.symlink_metadata(), path.metadata()] {
                let Ok(metadata) = metadata else { continue };
                if !self.0.contains(&metadata.uid()) {
                    return Err(Foreign {
                        path: path.to_owned(),
                        owner: metadata.uid(),
                        user: self.0.first().copied().unwrap_or_default(),
                    });
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} belongs to user {}, not to user {}: this working copy does not say which \
             repository it is (as git's `safe.directory` has it)",
            self.path.display(),
            self.owner,
            self.user
        )
    }
}
