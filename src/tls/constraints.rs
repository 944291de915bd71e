//! Name constraints (RFC 5280 section 4.2.1.10): the names that an authority can sign for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, GeneralSubtree as ReadSubtree};

use crate::name::Host;
use crate::policy::Names;

/// A name that never exists (RFC 6761): permitted if no name is to be permitted.
const NOBODY: &str = "tidegate.invalid";

/// The names that an authority can sign for. If no name of a kind is permitted explicitly, all
/// names of that kind are permitted that are not excluded.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Constraints {
    permitted: Subtrees,
    excluded: Subtrees,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Subtrees {
    names: Vec<String>,
    networks: Vec<IpNet>,
}

impl Constraints {
    /// Reads the constraints of a certificate. Returns `Err` if a client could read them in another
    /// way than the gate: a subtree of an address with a mask that is no prefix, or of directory
    /// names.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Result<Self, &'static str> {
        let extension = certificate.name_constraints();
        let extension = extension.map_err(|_| "its name constraints cannot be read")?;
        let Some(extension) = extension else {
            return Ok(Self::default());
        };
        let read = |trees: &Option<Vec<ReadSubtree<'_>>>| -> Result<Subtrees, &'static str> {
            let mut subtrees = Subtrees::default();
            for tree in trees.iter().flatten() {
                subtrees.add(&tree.base)?;
            }
            Ok(subtrees)
        };
        Ok(Self {
            permitted: read(&extension.value.permitted_subtrees)?,
            excluded: read(&extension.value.excluded_subtrees)?,
        })
    }

    /// Whether clients would trust a certificate for that host.
    pub fn permits(&self, host: &Host) -> bool {
        match host {
            Host::Name(name) => self.permits_name(name.as_str()),
            Host::Address(address) => self.permits_network(&IpNet::from(*address)),
        }
    }

    /// Returns the `names` for which clients would not trust a certificate.
    pub fn missing(&self, names: &Names) -> Vec<String> {
        let mut missing = Vec::new();
        let limited = self != &Self::default();
        if names.everything && limited {
            missing.push("everything".to_owned());
        }
        let lacking = names.names.iter().filter(|name| !self.permits_name(name));
        missing.extend(lacking.map(|name| match name.strip_prefix('.') {
            Some(suffix) => format!("*.{suffix}"),
            None => name.clone(),
        }));
        let lacking = names.networks.iter();
        let lacking = lacking.filter(|network| !self.permits_network(network));
        missing.extend(lacking.map(ToString::to_string));
        missing
    }

    /// Returns the permitted and the excluded names as text; both empty: every name.
    pub fn texts(&self) -> (Vec<String>, Vec<String>) {
        let texts = |subtrees: &Subtrees| {
            let networks = subtrees.networks.iter().map(ToString::to_string);
            subtrees.names.iter().cloned().chain(networks).collect()
        };
        (texts(&self.permitted), texts(&self.excluded))
    }

    /// Whether a name, or `.suffix` for all names below it, is permitted.
    fn permits_name(&self, name: &str) -> bool {
        let within = |tree: &String| is_below(name, tree);
        let permitted = &self.permitted.names;
        (permitted.is_empty() || permitted.iter().any(within))
            && !self.excluded.names.iter().any(within)
    }

    fn permits_network(&self, network: &IpNet) -> bool {
        let permitted = &self.permitted.networks;
        let covers = |tree: &IpNet| tree.contains(network);
        let touches = |tree: &IpNet| tree.contains(network) || network.contains(tree);
        (permitted.is_empty() || permitted.iter().any(covers))
            && !self.excluded.networks.iter().any(touches)
    }
}

impl Subtrees {
    fn add(&mut self, base: &GeneralName<'_>) -> Result<(), &'static str> {
        match base {
            GeneralName::DNSName(name) => self.names.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => {
                let network = network(bytes);
                let why = "its name constraints have an invalid network";
                self.networks.push(network.ok_or(why)?);
            }
            // The certificates that the gate makes have no names of these kinds.
            GeneralName::RFC822Name(_) | GeneralName::URI(_) | GeneralName::RegisteredID(_) => {}
            // The certificates of the gate do have a subject.
            GeneralName::DirectoryName(_) => {
                return Err(
                    "its name constraints are about directory names: clients would not \
                            believe the certificates that it signs here",
                );
            }
            _ => return Err("its name constraints are about names of an unknown kind"),
        }
        Ok(())
    }
}

/// Parses an address with its mask.
fn network(bytes: &[u8]) -> Option<IpNet> {
    let (address, mask) = bytes.split_at_checked(bytes.len() / 2)?;
    if let (Ok(address), Ok(mask)) = (<[u8; 4]>::try_from(address), <[u8; 4]>::try_from(mask)) {
        let (address, mask) = (Ipv4Addr::from(address), Ipv4Addr::from(mask));
        return Some(Ipv4Net::with_netmask(address, mask).ok()?.into());
    }
    let (address, mask) = (<[u8; 16]>::try_from(address), <[u8; 16]>::try_from(mask));
    let (address, mask) = (Ipv6Addr::from(address.ok()?), Ipv6Addr::from(mask.ok()?));
    Some(Ipv6Net::with_netmask(address, mask).ok()?.into())
}

/// Whether a subtree contains a name. A subtree with a leading dot (not in the RFC, but in use)
/// contains only the names below it.
fn is_below(name: &str, tree: &str) -> bool {
    if tree.is_empty() || name == tree {
        return true;
    }
    let Some(rest) = name.strip_suffix(tree) else {
        return false;
    };
    tree.starts_with('.') || rest.ends_with('.')
}

/// Builds the constraints that permit the inspected names and as little else as possible: a subtree
/// always contains its own root. `None` if every name is inspected.
pub(super) fn permitting(names: &Names) -> Option<NameConstraints> {
    if names.everything {
        return None;
    }
    let mut trees: Vec<&str> = names
        .names
        .iter()
        .map(|name| name.trim_start_matches('.'))
        .collect();
    trees.sort_unstable_by_key(|name| name.len());
    let mut least: Vec<&str> = Vec::new();
    for name in trees {
        if !least.iter().any(|tree| is_below(name, tree)) {
            least.push(name);
        }
    }
    least.sort_unstable();
    if least.is_empty() {
        // If no name of a kind were permitted, all names of that kind would be.
        least.push(NOBODY);
    }
    let trees = least
        .into_iter()
        .map(|name| GeneralSubtree::DnsName(name.to_owned()));
    let subtree = |network: &IpNet| {
        let subnet = CidrSubnet::from_addr_prefix(network.network(), network.prefix_len());
        GeneralSubtree::IpAddress(subnet)
    };
    let networks = IpNet::aggregate(&names.networks);
    let lacks = |is_v4: bool| !networks.iter().any(|it| it.addr().is_ipv4() == is_v4);
    let nothing: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let excluded = nothing.into_iter().filter(|it| lacks(it.is_ipv4()));
    Some(NameConstraints {
        permitted_subtrees: trees.chain(networks.iter().map(subtree)).collect(),
        excluded_subtrees: excluded
            .map(|all| GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(all, 0)))
            .collect(),
    })
}
