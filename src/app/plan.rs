//! Loads a configuration and compiles the plan of a gate, for every command.

use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{self, Config, Owners};
use crate::diag::{Diagnostic, Severity};
use crate::dial::Dialer;
use crate::gate::{Shadow, Snapshot};
use crate::policy::{self, Catalogue, Policy};
use crate::tls;

use super::repository_policies::{self, RepositoryPolicies};

/// The result of loading a configuration.
#[derive(Debug)]
pub struct Loaded {
    /// The whole configuration, if the file has the right form.
    pub config: Option<Config>,
    /// The compiled rules, if there is no error.
    pub policy: Option<Policy>,
    /// The compiled rules, if the only error is a broken invariant: used to explain the flow that
    /// breaks it.
    pub unproved: Option<Policy>,
    /// The TLS configuration towards upstreams, if it has no error.
    pub upstreams: Option<tls::Upstreams>,
    /// The TLS configuration of the listeners, if it has no error.
    pub tls: Option<tls::Servers>,
    /// The certificate authority for inspected destinations, if one is configured.
    pub authority: Option<Arc<tls::Authority>>,
    /// The shadow policy, whose decisions have no effect.
    pub shadow: Option<Arc<Shadow>>,
    /// The policies of repositories that narrow the policy, and are part of it.
    pub repository_policies: RepositoryPolicies,
    /// All findings.
    pub findings: Vec<Diagnostic>,
}

/// A configuration whose policy compiled, ready to run.
#[derive(Debug)]
pub struct Plan {
    /// The whole configuration.
    pub config: Config,
    /// The compiled rules.
    pub policy: Policy,
    /// The TLS configuration of the listeners.
    pub tls: tls::Servers,
    /// The certificate authority for inspected destinations.
    pub authority: Option<Arc<tls::Authority>>,
    /// The TLS configuration towards upstreams.
    pub upstreams: tls::Upstreams,
    /// The shadow policy, whose decisions have no effect.
    pub shadow: Option<Arc<Shadow>>,
    /// The policies of repositories that narrow the policy, and are part of it.
    pub repository_policies: RepositoryPolicies,
    /// Findings that do not prevent the start.
    pub warnings: Vec<Diagnostic>,
    /// The clock of the gate.
    pub clock: Clock,
    /// The dialer, instead of one that the configuration describes: for a gate whose origins stand
    /// in for the real ones. No key, variable or option of `run` and `exec` sets it.
    pub dialer: Option<Arc<Dialer>>,
}

impl Loaded {
    /// Loads and compiles a file, or the built-in policy.
    pub fn new(path: Option<&Path>, catalogue: &Catalogue) -> Self {
        Self::after(path, catalogue, &RepositoryPolicies::default())
    }

    /// Like [`Loaded::new`], after a generation with these policies of repositories.
    fn after(path: Option<&Path>, catalogue: &Catalogue, before: &RepositoryPolicies) -> Self {
        let (config, findings) = match path {
            Some(path) => config::load(path),
            None => (Some(config::embedded()), Vec::new()),
        };
        match config {
            Some(config) => Self::of(config, findings, catalogue, before),
            None => Self {
                config: None,
                policy: None,
                unproved: None,
                upstreams: None,
                tls: None,
                authority: None,
                shadow: None,
                repository_policies: RepositoryPolicies::default(),
                findings,
            },
        }
    }

    /// Compiles a loaded configuration.
    fn of(
        mut config: Config,
        mut findings: Vec<Diagnostic>,
        catalogue: &Catalogue,
        before: &RepositoryPolicies,
    ) -> Self {
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
        findings.extend(tls::Client::wrong_with_webhooks(&config.notifiers));
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
        let mut repository_policies = RepositoryPolicies::default();
        let policy = policy.map(|policy| {
            let (policy, read, refused) =
                RepositoryPolicies::narrow(&mut config, policy, catalogue, before);
            repository_policies = read;
            findings.extend(refused);
            policy
        });
        let shadow = shadow(&config, catalogue, &mut findings);
        Self {
            shadow,
            policy,
            repository_policies,
            unproved,
            upstreams,
            tls,
            authority: authority.map(Arc::new),
            config: Some(config),
            findings,
        }
    }

    /// Adds a finding for each file that a process of a user outside `owners` could change.
    #[must_use]
    pub fn with_exposures(mut self, owners: &Owners, severity: Severity) -> Self {
        let exposed = self
            .config
            .iter()
            .flat_map(|it| {
                [
                    config::exposures(it, owners),
                    repository_policies::exposures(it, owners),
                ]
            })
            .flatten();
        let exposed = exposed.map(|finding| Diagnostic {
            severity,
            ..finding
        });
        self.findings.extend(exposed.collect::<Vec<_>>());
        self
    }

    /// The findings that prevent loading.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.findings.iter().filter(|finding| is_error(finding))
    }

    /// Returns the plan of a gate; the error has every finding.
    pub fn plan(self) -> Result<Plan, Vec<Diagnostic>> {
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
                repository_policies: self.repository_policies,
                warnings: self.findings,
                clock: Clock::system(),
                dialer: None,
            }),
            _ => Err(self.findings),
        }
    }
}

impl Plan {
    /// Loads and compiles a file, or the built-in policy. Only `owners` may be able to change the
    /// files. `Err` has every finding.
    pub fn new(
        path: Option<&Path>,
        catalogue: &Catalogue,
        owners: &Owners,
    ) -> Result<Self, Vec<Diagnostic>> {
        Self::after(path, catalogue, owners, &RepositoryPolicies::default())
    }

    /// Like [`Plan::new`], after a generation with these policies of repositories.
    pub(super) fn after(
        path: Option<&Path>,
        catalogue: &Catalogue,
        owners: &Owners,
        before: &RepositoryPolicies,
    ) -> Result<Self, Vec<Diagnostic>> {
        let plan = Loaded::after(path, catalogue, before)
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

    /// Compiles the configuration of a generation again, from memory. No file is read:
    /// certificates, keys and roots are those of the generation.
    pub(super) fn of_copy(
        config: Config,
        now: &Snapshot,
        catalogue: &Catalogue,
        repositories: &RepositoryPolicies,
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
                // The configuration already has the rules of these policies.
                repository_policies: repositories.clone(),
                warnings: Vec::new(),
                clock: now.clock.clone(),
                dialer: None,
            }),
            _ => Err(findings),
        }
    }

    /// The same plan without reviewers: a flow that needs an approval is refused at once.
    #[must_use]
    pub fn without_reviewers(mut self) -> Self {
        self.policy.remove_reviewers();
        self
    }

    /// The same plan in `observe` mode: would-be refusals pass, and are recorded.
    #[must_use]
    pub fn observing(mut self) -> Self {
        self.policy.observe();
        self
    }
}

/// The shadow policy, if one is configured and loads. A failure to load is only a warning.
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
