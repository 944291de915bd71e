//! The shadow policy, which decides beside the policy in force, without effect.

use std::path::Path;
use std::sync::Arc;

use crate::config;
use crate::diag::Severity;
use crate::policy::{self, Catalogue, Policy};

/// Bytes of a shadow policy, at most.
const MAX_FILE: u64 = 64 << 20;

/// A shadow policy: its verdicts are recorded and counted, and nothing else depends on them.
#[derive(Debug)]
pub struct Shadow {
    /// The compiled policy.
    pub policy: Policy,
    /// SHA-256 over every text of its configuration, in hex.
    pub digest: Arc<str>,
}

impl Shadow {
    /// Loads the policy of a configuration file.
    ///
    /// # Errors
    ///
    /// A description of the error, for a person.
    pub fn load(path: &Path, catalogue: &Catalogue) -> Result<Self, String> {
        let named = |why: String| format!("{}: {why}", path.display());
        // Opening a pipe or a device could block.
        let about = std::fs::metadata(path).map_err(|error| named(error.to_string()))?;
        if !about.is_file() || about.len() > MAX_FILE {
            return Err(named(
                "it must be a regular file of at most 64 MiB".to_owned(),
            ));
        }
        let (config, mut findings) = config::load(path);
        let compiled = config.map(|config| {
            let (policy, more) = policy::compile(&config.policy, catalogue);
            findings.extend(more);
            let policy = policy.filter(|policy| {
                findings.extend(policy::invariant_findings(&config.policy, policy));
                !findings.iter().any(|it| it.severity == Severity::Error)
            });
            (policy, config.digest)
        });
        if let Some((Some(policy), digest)) = compiled {
            return Ok(Self { policy, digest });
        }
        let mut errors = findings.iter().filter(|it| it.severity == Severity::Error);
        let first = errors.next().map(|it| match &it.place {
            Some(place) => format!("{place}: {}", it.message),
            None => it.message.clone(),
        });
        Err(named(
            first.unwrap_or_else(|| "it does not load".to_owned()),
        ))
    }
}
