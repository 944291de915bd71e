//! From a file to what a gate runs: the one loader of every command.

use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{self, Config, Owners};
use crate::diag::{Diagnostic, Severity};
use crate::gate::{Shadow, Snapshot};
use crate::policy::{self, Catalogue, Policy};
use crate::tls;

/// What became of a configuration.
#[derive(Debug)]
pub struct Loaded {
    /// Everything that was written, where it has the form of a configuration.
    pub config: Option<Config>,
    /// The compiled rules, where nothing is wrong.
    pub policy: Option<Policy>,
    /// The compiled rules where nothing is wrong but that an invariant does not hold: to explain
    /// the flow that breaks it.
    pub unproved: Option<Policy>,
    /// How upstreams are spoken TLS with, where nothing is wrong with that.
    pub upstreams: Option<tls::Upstreams>,
    /// How listeners speak TLS, where nothing is wrong with that.
    pub tls: Option<tls::Servers>,
    /// The authority for inspected destinations, where there is one.
    pub authority: Option<Arc<tls::Authority>>,
    /// The policy that decides beside, without effect.
    pub shadow: Option<Arc<Shadow>>,
    /// All that was found.
    pub findings: Vec<Diagnostic>,
}

/// What to run: a configuration whose policy compiled.
#[derive(Debug)]
pub struct Plan {
    /// Everything that was written.
    pub config: Config,
    /// The compiled rules.
    pub policy: Policy,
    /// How listeners speak TLS.
    pub tls: tls::Servers,
    /// The authority for inspected destinations.
    pub authority: Option<Arc<tls::Authority>>,
    /// How upstreams are spoken TLS with.
    pub upstreams: tls::Upstreams,
    /// The policy that decides beside, without effect.
    pub shadow: Option<Arc<Shadow>>,
    /// Findings that do not keep it from running.
    pub warnings: Vec<Diagnostic>,
}

impl Loaded {
    /// Loads and compiles a file, or the built-in policy.
    pub fn new(path: Option<&Path>, catalogue: &Catalogue) -> Self {
        let (config, findings) = match path {
            Some(path) => config::load(path),
            None => (Some(config::embedded()), Vec::new()),
        };
        match config {
            Some(config) => Self::of(config, findings, catalogue),
            None => Self {
                config: None,
                policy: None,
                unproved: None,
                upstreams: None,
                tls: None,
                authority: None,
                shadow: None,
                findings,
            },
        }
    }

    /// Compiles a configuration that was read.
    fn of(config: Config, mut findings: Vec<Diagnostic>, catalogue: &Catalogue) -> Self {
        let clock = Clock::system();
        let (policy, more) = policy::compile(&config.policy, catalogue);
        findings.extend(more);
        let (tls, more) = tls::Servers::new(&config.listen, &clock);
        findings.extend(more);
        let names = policy.as_ref().map(Policy::inspected_names);
        let names = names.unwrap_or_default();
        let (authority, more) = tls::Authority::new(&config.inspect, &names, &clock);
        findings.extend(more);
        let (upstreams, more) = tls::Upstreams::new(&config.upstreams, &clock);
        findings.extend(more);
        findings.extend(tls::Client::wrong_with(&config.dial.parents));
        let sound = policy.filter(|_| !findings.iter().any(is_error));
        let broken = sound
            .as_ref()
            .map(|it| policy::invariant_findings(&config.policy, it))
            .unwrap_or_default();
        let (policy, unproved) = if broken.is_empty() {
            (sound, None)
        } else {
            (None, sound)
        };
        findings.extend(broken);
        let shadow = shadow(&config, catalogue, &mut findings);
        Self {
            shadow,
            policy,
            unproved,
            upstreams,
            tls,
            authority: authority.map(Arc::new),
            config: Some(config),
            findings,
        }
    }

    /// Adds what processes other than root's and the gate's could change of its files.
    #[must_use]
    pub fn with_exposures(mut self, owners: &Owners, severity: Severity) -> Self {
        let exposed = self
            .config
            .iter()
            .flat_map(|it| config::exposures(it, owners));
        let exposed = exposed.map(|finding| Diagnostic {
            severity,
            ..finding
        });
        self.findings.extend(exposed.collect::<Vec<_>>());
        self
    }

    /// The findings that keep it from loading.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.findings.iter().filter(|finding| is_error(finding))
    }

    fn plan(self) -> Result<Plan, Vec<Diagnostic>> {
        if self.findings.iter().any(is_error) {
            return Err(self.findings);
        }
        match (self.config, self.policy, self.tls, self.upstreams) {
            (Some(config), Some(policy), Some(tls), Some(upstreams)) => Ok(Plan {
                config,
                policy,
                tls,
                authority: self.authority,
                upstreams,
                shadow: self.shadow,
                warnings: self.findings,
            }),
            _ => Err(self.findings),
        }
    }
}

impl Plan {
    /// Loads and compiles a file, or the built-in policy, of which `owners` alone may change
    /// anything. `Err` has every finding.
    pub fn new(
        path: Option<&Path>,
        catalogue: &Catalogue,
        owners: &Owners,
    ) -> Result<Self, Vec<Diagnostic>> {
        let plan = Loaded::new(path, catalogue)
            .with_exposures(owners, Severity::Error)
            .plan()?;
        // A pipe (`--config <(…)`) can be read once.
        if path.is_none_or(|path| !path.is_file()) {
            return Ok(plan);
        }
        // The files were read before their folders were checked. Now no other user can write there:
        // if the files still have the same text, that text can be trusted.
        match config::digest_of_files(&plan.config) {
            Ok(digest) if digest == plan.config.digest => Ok(plan),
            Ok(_) => Err(vec![changed("the files changed while they were read")]),
            Err(error) => Err(vec![changed(&format!(
                "the files cannot be read again: {error}"
            ))]),
        }
    }

    /// The plan of a generation again, compiled from its configuration in memory. No file is read:
    /// certificates, keys and roots are those of the generation.
    pub(super) fn of_copy(
        config: Config,
        now: &Snapshot,
        catalogue: &Catalogue,
    ) -> Result<Self, Vec<Diagnostic>> {
        let (policy, findings) = policy::compile(&config.policy, catalogue);
        match policy {
            Some(policy) if !findings.iter().any(is_error) => Ok(Self {
                config,
                policy,
                tls: now.tls.clone(),
                authority: now.authority.clone(),
                upstreams: now.upstreams.clone(),
                shadow: now.shadow.clone(),
                warnings: Vec::new(),
            }),
            _ => Err(findings),
        }
    }

    /// The same in `observe` mode: would-be refusals pass, and the record has them.
    #[must_use]
    pub fn observing(mut self) -> Self {
        self.policy.observe();
        self
    }
}

/// The shadow policy, where there is one that loads: one that does not is a warning, and stops nothing.
fn shadow(
    config: &Config,
    catalogue: &Catalogue,
    findings: &mut Vec<Diagnostic>,
) -> Option<Arc<Shadow>> {
    match Shadow::load(config.shadow.as_deref()?, catalogue) {
        Ok(shadow) => Some(Arc::new(shadow)),
        Err(why) => {
            let message = format!("the shadow policy does not load: {why}");
            let mut finding = Diagnostic::unplaced("shadow-policy", message);
            finding.severity = Severity::Warning;
            findings.push(finding.help("run `tidegate check` on it, then send SIGHUP"));
            None
        }
    }
}

fn changed(message: &str) -> Diagnostic {
    Diagnostic::unplaced("files-changed", message).help("start it again when they are written")
}

fn is_error(finding: &Diagnostic) -> bool {
    finding.severity == Severity::Error
}
