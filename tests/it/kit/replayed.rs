//! Whether the policy of a gate decides the flows that it wrote down in the same way again.

use std::path::Path;
use std::sync::LazyLock;

use tidegate::app::Loaded;
use tidegate::policy::{Catalogue, built_in};
use tidegate::replay::{Judge, Report};

use super::chain::log_files;

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(built_in);

/// What differs, where something does; nothing is said of a configuration that does not load.
pub(crate) fn difference(config: &Path, log: &Path) -> Option<String> {
    let loaded = Loaded::new(Some(config), &CATALOGUE);
    let (config, policy) = (loaded.config?, loaded.policy?);
    let judge = Judge::new(&policy, &config.digest);
    let mut report = Report::default();
    for file in log_files(log) {
        report.add_file(&judge, &file).ok()?;
    }
    let own = report.own;
    (own.changed + own.by_other_rule > 0).then(|| format!("{:#}", report.as_json()))
}
