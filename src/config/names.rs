//! Checks names that one section uses and another defines. An undefined name would silently drop
//! the floor or the tier that was meant.

use std::sync::Arc;

use toml::Spanned;

use crate::diag::{Diagnostic, did_you_mean};
use crate::policy::source::Placed;

use super::value::shortened;
use super::written::Written;

/// The names that the files define.
pub(super) struct Names<'w> {
    tiers: Vec<&'w str>,
    groups: Vec<&'w str>,
    /// Whether a user, an issuer or `[identity.session]` is configured.
    identifies: bool,
}

impl<'w> Names<'w> {
    /// Collects the names that the files define.
    pub(super) fn of(written: &'w Written) -> Self {
        let policy = &written.policy;
        let tiers = match &policy.tiers {
            Some(tiers) => tiers
                .value
                .order
                .iter()
                .map(|tier| tier.get_ref().as_str())
                .collect(),
            None if policy.tier.is_empty() => DEFAULT_TIERS.to_vec(),
            None => policy
                .tier
                .iter()
                .map(|(name, _)| name.get_ref().as_str())
                .collect(),
        };
        Self {
            tiers,
            groups: policy
                .groups
                .iter()
                .map(|(name, _)| name.get_ref().as_str())
                .collect(),
            identifies: !written.users.is_empty()
                || !written.issuers.is_empty()
                || written.session.is_some(),
        }
    }

    /// Whether a client can identify itself by a credential.
    pub(super) fn has_credentials(&self) -> bool {
        self.identifies
    }

    /// Checks a tier.
    pub(super) fn tier<T>(
        &self,
        section: &Placed<T>,
        tier: &Spanned<String>,
        findings: &mut Vec<Diagnostic>,
    ) -> Arc<str> {
        let name = tier.get_ref().as_str();
        if !self.tiers.contains(&name) {
            let message = format!("there is no tier `{}`", shortened(name));
            let finding = Diagnostic::error("unknown-tier", section.at(tier), message);
            findings.push(finding.help(did_you_mean(name, &self.tiers)));
        }
        name.into()
    }

    /// Checks groups.
    pub(super) fn groups<T>(
        &self,
        section: &Placed<T>,
        groups: &[Spanned<String>],
        findings: &mut Vec<Diagnostic>,
    ) -> Vec<Arc<str>> {
        for group in groups
            .iter()
            .filter(|group| !self.groups.contains(&group.get_ref().as_str()))
        {
            let name = group.get_ref();
            let message = format!("there is no group `{}`", shortened(name));
            let finding = Diagnostic::error("unknown-group", section.at(group), message);
            let help = match self.groups.as_slice() {
                [] => format!("write `[group.{}]`", shortened(name)),
                known => did_you_mean(name, known),
            };
            findings.push(finding.help(help));
        }
        groups
            .iter()
            .map(|group| group.get_ref().as_str().into())
            .collect()
    }

    /// Checks the name of a user: the part before the `:` in Basic credentials (RFC 7617).
    #[expect(clippy::unused_self, reason = "called like the others")]
    pub(super) fn user<T>(
        &self,
        section: &Placed<T>,
        user: &Spanned<String>,
        findings: &mut Vec<Diagnostic>,
    ) -> Option<Arc<str>> {
        let name = user.get_ref().as_str();
        let wrong = |letter: char| letter == ':' || letter.is_control() || letter.is_whitespace();
        if !name.is_empty() && !name.contains(wrong) {
            return Some(name.into());
        }
        let message = "a user has a name without `:`, blanks and control characters";
        let finding = Diagnostic::error("bad-name", section.at(user), message);
        findings.push(finding.help("write e.g. `ana` or `ana@acme.example`"));
        None
    }

    /// Checks a repository: a clone URL without scheme, user and `.git`.
    #[expect(clippy::unused_self, reason = "called like the others")]
    pub(super) fn repository<T>(
        &self,
        section: &Placed<T>,
        repository: &Spanned<String>,
        findings: &mut Vec<Diagnostic>,
    ) -> Option<Arc<str>> {
        let written = repository.get_ref().as_str();
        let bare = bare_repository(written);
        if bare == written && is_repository(written) {
            return Some(written.into());
        }
        let message = format!("`{}` is not the name of a repository", shortened(written));
        let finding = Diagnostic::error("bad-repository", section.at(repository), message);
        findings.push(finding.help(if is_repository(&bare) {
            format!("write `{bare}`")
        } else {
            "write the clone URL without scheme, user and `.git`: `github.com/acme/web`".to_owned()
        }));
        None
    }
}

/// The tiers of a policy without `[tiers]`.
const DEFAULT_TIERS: [&str; 3] = ["open", "standard", "restricted"];

/// Returns a clone URL without scheme, user and `.git`.
fn bare_repository(text: &str) -> String {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    // ssh writes a clone URL as `git@host:path`.
    let joined = if path.is_empty() {
        host.to_owned()
    } else {
        format!("{host}/{path}")
    };
    let joined = if text.contains("://") {
        joined
    } else {
        joined.replacen(':', "/", 1)
    };
    joined
        .trim_end_matches('/')
        .trim_end_matches(".git")
        .to_owned()
}

fn is_repository(text: &str) -> bool {
    let parts: Vec<_> = text.split('/').collect();
    let wrong = |letter: char| letter.is_whitespace() || letter.is_control() || letter == '*';
    parts.len() >= 2
        && parts
            .iter()
            .all(|part| !part.is_empty() && !part.contains(wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clone_urls_lose_scheme_user_and_ending() {
        for url in [
            "https://github.com/acme/web.git",
            "https://token@github.com/acme/web",
            "ssh://git@github.com/acme/web.git/",
            "git@github.com:acme/web.git",
            "github.com/acme/web",
        ] {
            assert_eq!(bare_repository(url), "github.com/acme/web", "{url}");
        }
        assert!(is_repository("github.com/acme/web"));
        for wrong in [
            "web",
            "",
            "github.com//web",
            "github.com/acme/*",
            "github.com/a b",
        ] {
            assert!(!is_repository(wrong), "{wrong}");
        }
    }
}
