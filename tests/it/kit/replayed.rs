//! Whether the policy of a gate decides the flows that it wrote down in the same way again.

use std::path::Path;
use std::sync::LazyLock;

use tidegate::app::Loaded;
use tidegate::policy::{Catalogue, built_in};
use tidegate::replay::{Judge, Report};

use super::chain::log_files;

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(built_in);

/// What differs, where something does; `None` also where the configuration does not load.
pub(crate) fn difference(config: &Path, log: &Path) -> Option<String> {
    let loaded = Loaded::new(Some(config), &CATALOGUE);
    let (config, policy) = (loaded.config?, loaded.policy?);
    let judge = Judge::new(&policy, &config.digest);
    let mut report = Report::default();
    for file in log_files(log).iter().filter(|file| file.exists()) {
        if let Err(error) = report.add_file(&judge, file) {
            return Some(format!("{}: {error}", file.display()));
        }
    }
    let own = report.own;
    (own.changed + own.by_other_rule > 0).then(|| format!("{:#}", report.as_json()))
}
