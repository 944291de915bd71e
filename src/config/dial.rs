//! `[dial]`: how the gate reaches targets.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use toml::Spanned;

use crate::diag::Diagnostic;
use crate::name::HostName;
use crate::policy::source::Placed;

use super::parent::Parent;
use super::value;

/// How the gate reaches targets.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Dial {
    /// Fixed answers that replace DNS; the address floor applies to them as to any answer.
    pub hosts: HashMap<HostName, Vec<IpAddr>>,
    /// Name servers instead of the system's (`resolvers = ["10.0.0.53:53"]`; default port 53).
    pub resolvers: Vec<SocketAddr>,
    /// `parent`: the parent proxies for some or all targets, in order of preference.
    pub parents: Vec<Parent>,
}

/// The text of `[dial]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Section {
    #[serde(default)]
    hosts: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,
    #[serde(default)]
    resolvers: Vec<Spanned<String>>,
}

const DNS: u16 = 53;

/// Reads the section.
pub(super) fn dial(section: Option<&Placed<Section>>, findings: &mut Vec<Diagnostic>) -> Dial {
    let mut dial = Dial::default();
    let Some(section) = section else { return dial };
    for (name, addresses) in &section.value.hosts {
        let Some(host) = host_name(section, name, findings) else {
            continue;
        };
        if addresses.is_empty() {
            let message = format!("`{host}` has no address");
            let finding = Diagnostic::error("empty", section.at(name), message);
            findings.push(finding.help("name an address, or deny the host in a rule"));
        }
        let addresses = addresses
            .iter()
            .filter_map(|text| value::address(text.get_ref(), section.at(text), findings))
            .collect();
        if dial.hosts.insert(host.clone(), addresses).is_some() {
            let message = format!("`{host}` is written twice, in two spellings");
            let finding = Diagnostic::error("host-twice", section.at(name), message);
            findings.push(finding.help("keep one of them, with all its addresses"));
        }
    }
    for text in &section.value.resolvers {
        let (text, place) = (text.get_ref(), section.at(text));
        dial.resolvers
            .extend(value::address_with_port(text, DNS, place, findings));
    }
    dial
}

fn host_name(
    section: &Placed<Section>,
    name: &Spanned<String>,
    findings: &mut Vec<Diagnostic>,
) -> Option<HostName> {
    match HostName::from_unicode(name.get_ref()) {
        Ok(host) => Some(host),
        Err(error) => {
            let message = format!("`{}` is not a host name", value::shortened(name.get_ref()));
            let finding = Diagnostic::error("bad-name", section.at(name), message);
            findings.push(finding.label(error.to_string()));
            None
        }
    }
}
