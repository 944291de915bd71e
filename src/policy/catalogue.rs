//! The built-in catalogue: the purposes of destinations, as dated data.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::name::Host;

use super::Services;
use super::directory::Directory;
use super::source::CatalogueFile;

/// Destinations by category. Made once, and shared by every compiled policy.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// The files, in the order of their names.
    pub files: Vec<(&'static str, CatalogueFile)>,
    pub(super) directory: Arc<Directory>,
    /// The service files that read requests to the destinations.
    pub(super) services: Services,
}

impl Catalogue {
    /// Returns the service that reads requests to a host, if there is one.
    pub fn service(&self, host: &Host) -> Option<&str> {
        self.directory.find(host)?.service.as_deref()
    }

    /// Returns every agent in the entries.
    pub(super) fn agents(&self) -> BTreeSet<&str> {
        let destinations = self.files.iter().flat_map(|(_, file)| &file.destination);
        destinations
            .flat_map(|it| &it.agents)
            .map(String::as_str)
            .collect()
    }
}
