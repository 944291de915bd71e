//! The built-in catalogue: what destinations are for, as dated data.

use super::source::CatalogueFile;

/// Destinations by category.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// The files, in the order of their names.
    pub files: Vec<(&'static str, CatalogueFile)>,
}

/// The catalogue that is compiled into the binary (`config/catalogue/*.toml`).
pub fn built_in() -> Catalogue {
    todo!()
}
