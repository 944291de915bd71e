//! The environment to examine: the agent's own, read once.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Variables by name. Clients ignore a value that is not UTF-8, and so does the doctor.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings(BTreeMap<String, String>);

impl Surroundings {
    /// Returns the variables of this process.
    pub(super) fn of_this_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// Returns the value of a variable that is set and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Returns all variables.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Returns the path of a program on the PATH.
    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        std::env::split_paths(self.get("PATH")?)
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
    }
}
