//! `[refusal]`: the contact text of refusals.

use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use crate::diag::Diagnostic;
use crate::policy::source::Placed;

/// Maximum length of the contact text, in bytes.
const MAX_CONTACT: usize = 300;

/// The text of `[refusal]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Section {
    /// Where to ask about a refusal; `{host}`, `{rule}` and `{tier}` are replaced by the refusal's
    /// values.
    contact: Option<Spanned<String>>,
}

/// Reads the contact text of refusals by the policy.
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
