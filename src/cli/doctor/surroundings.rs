//! The environment that is examined: the agent's own, read once.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Variables by name. What is no UTF-8 means nothing to a client either.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings(BTreeMap<String, String>);

impl Surroundings {
    /// What this process was started with.
    pub(super) fn of_this_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// The value of a variable that is set and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Where a program is on the PATH.
    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        std::env::split_paths(self.get("PATH")?)
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
    }
}
