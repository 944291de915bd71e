//! `[refusal]`: what refusals say besides their reason.

use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use crate::diag::Diagnostic;
use crate::policy::source::Placed;

/// Bound on the contact text, in bytes.
const MAX_CONTACT: usize = 300;

/// `[refusal]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Section {
    /// Where to ask about a refusal; `{host}`, `{rule}` and `{tier}` stand for those of the refusal.
    contact: Option<Spanned<String>>,
}

/// The contact text of refusals by the policy.
pub(super) fn contact(
    section: Option<&Placed<Section>>,
    findings: &mut Vec<Diagnostic>,
) -> Option<Arc<str>> {
    let section = section?;
    let contact = section.value.contact.as_ref()?;
    let text = contact.get_ref();
    if text.is_empty() || text.len() > MAX_CONTACT || text.chars().any(char::is_control) {
        let message = "`contact` is no line of at most 300 bytes";
        findings.push(
            Diagnostic::error("bad-contact", section.at(contact), message)
                .help("write e.g. `contact = \"Ask for {host} in #egress\"`"),
        );
        return None;
    }
    Some(text.as_str().into())
}
