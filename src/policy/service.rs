//! What requests do, by service: read from the data files beside the catalogue.

use crate::name::Path;

use super::{Action, Category, Deed};

/// What is known of the protocols of services.
#[derive(Clone, Debug, Default)]
pub struct Services;

impl Services {
    /// Those that the program brings.
    pub fn built_in() -> Self {
        Self
    }

    /// Whether there is a service of that name.
    pub fn knows(&self, _name: &str) -> bool {
        false
    }

    /// What the head of a request tells of its deed: by the service where one is known, else by
    /// what any host may speak (git smart HTTP), else by method.
    pub fn read(
        &self,
        _service: Option<&str>,
        category: Category,
        method: &str,
        path: &Path,
    ) -> Deed {
        Deed {
            action: Some(Action::of(category, method, path)),
            ..Deed::default()
        }
    }
}
