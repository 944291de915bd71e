//! The built-in catalogue: what destinations are for, as dated data.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::name::Host;

use super::Services;
use super::directory::Directory;
use super::source::CatalogueFile;

/// Destinations by category. Made once, shared by every policy that is compiled over it.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// The files, in the order of their names.
    pub files: Vec<(&'static str, CatalogueFile)>,
    pub(super) directory: Arc<Directory>,
    /// The data files that read requests to them.
    pub(super) services: Services,
}

impl Catalogue {
    /// The service that reads requests to a host, where there is one.
    pub fn service(&self, host: &Host) -> Option<&str> {
        self.directory.find(host)?.service.as_deref()
    }

    /// Every agent that some destination names.
    pub(super) fn agents(&self) -> BTreeSet<&str> {
        let destinations = self.files.iter().flat_map(|(_, file)| &file.destination);
        destinations
            .flat_map(|it| &it.agents)
            .map(String::as_str)
            .collect()
    }
}
