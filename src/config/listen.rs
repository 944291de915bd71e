//! `[listen]` and `[[listener]]`: the listeners for callers and operators.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;
use toml::Spanned;

use crate::diag::{Diagnostic, Place};
use crate::policy::source::Placed;

use super::admin_tls::{self, AdminTls, AdminTlsSection};
use super::names::Names;
use super::tls::{self, ListenerTls, ProxyTlsSection, TlsSection};
use super::value;

/// The listeners for callers and operators.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listen {
    /// Every proxy listener: `listen.proxy`, `listen.proxy-tls`, then each `[[listener]]`.
    pub proxy: Vec<Listener>,
    /// The listener for health, metrics and API; `None`: no admin listener. Never reachable through
    /// the proxy.
    pub admin: Option<AdminAddress>,
    /// The TLS admin listener for other hosts.
    pub admin_tls: Option<Arc<AdminTls>>,
    /// Host names, besides `localhost`, by which clients reach an admin listener.
    pub admin_names: Vec<Arc<str>>,
    /// The socket for starting and revoking sessions; `None`: there is none.
    pub control: Option<Control>,
}

/// The control socket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Control {
    /// The path of the socket, which has mode 0600.
    pub path: PathBuf,
    /// Whether the path is configured: then the gate does not start without the socket.
    pub written: bool,
}

/// One proxy listener, http:// or https://, and the facts of its callers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// The address to bind.
    pub address: SocketAddr,
    /// The loosest tier that its callers may have.
    pub tier: Option<Arc<str>>,
    /// The user, if all callers are the same user.
    pub user: Option<Arc<str>>,
    /// The groups of its callers.
    pub groups: Vec<Arc<str>>,
    /// The repository of its callers.
    pub repository: Option<Arc<str>>,
    /// Whether a caller has to identify itself.
    pub identity: IdentityDemand,
    /// The TLS settings; `None`: no TLS.
    pub tls: Option<Arc<ListenerTls>>,
    /// The networks of balancers, which send the client's address (PROXY protocol).
    pub balancers: Vec<IpNet>,
}

/// Whether a caller has to identify itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum IdentityDemand {
    /// The caller may identify itself; wrong evidence is refused.
    #[default]
    Optional,
    /// The caller must identify itself: 407 otherwise.
    Required,
}

/// The address of the admin listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AdminAddress {
    /// TCP; keep it on loopback.
    Tcp(SocketAddr),
    /// `unix:PATH`, mode 0600.
    Unix(PathBuf),
}

/// The text of `[listen]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Section {
    proxy: Option<Vec<Spanned<String>>>,
    proxy_tls: Option<ProxyTlsSection>,
    #[serde(default)]
    proxy_protocol: Vec<Spanned<String>>,
    admin: Option<Spanned<String>>,
    admin_tls: Option<AdminTlsSection>,
    #[serde(default)]
    admin_names: Vec<Spanned<String>>,
    control: Option<Spanned<String>>,
}

/// The text of `[[listener]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ListenerSection {
    address: Spanned<String>,
    tier: Option<Spanned<String>>,
    user: Option<Spanned<String>>,
    #[serde(default)]
    groups: Vec<Spanned<String>>,
    repository: Option<Spanned<String>>,
    identity: Option<Spanned<String>>,
    tls: Option<TlsSection>,
    #[serde(default)]
    proxy_protocol: Vec<Spanned<String>>,
}

/// The words of `identity`.
pub(super) const IDENTITY: [(&str, IdentityDemand); 2] = [
    ("optional", IdentityDemand::Optional),
    ("required", IdentityDemand::Required),
];
const PROXY_PORT: u16 = 3128;
const ADMIN_PORT: u16 = 3130;
/// Maximum length of a Unix socket path in Linux (`sun_path`, without its NUL).
const MAX_SOCKET_PATH_BYTES: usize = 107;

impl Listen {
    /// Returns the defaults: a proxy and an admin listener on loopback.
    pub(super) fn on_loopback() -> Self {
        Self {
            proxy: vec![Listener::at(loopback(PROXY_PORT))],
            admin: Some(default_admin()),
            admin_tls: None,
            admin_names: Vec::new(),
            control: None,
        }
    }
}

impl Listener {
    /// Returns a listener without facts of its callers.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            tier: None,
            user: None,
            groups: Vec::new(),
            repository: None,
            identity: IdentityDemand::Optional,
            tls: None,
            balancers: Vec::new(),
        }
    }

    /// Whether a caller without a certificate is refused before its first request.
    fn asks_for_certificates(&self) -> bool {
        let clients = self.tls.as_ref().and_then(|tls| tls.clients.as_ref());
        clients.is_some_and(|clients| clients.required)
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn default_admin() -> AdminAddress {
    AdminAddress::Tcp(loopback(ADMIN_PORT))
}

/// Reads the listeners, or returns the default ones if none is configured: a `[[listener]]`
/// restricts callers, so no default listener is opened beside it.
pub(super) fn listen(
    section: Option<&Placed<Section>>,
    listeners: &[Placed<ListenerSection>],
    names: &Names<'_>,
    read: &mut Vec<(PathBuf, String)>,
    findings: &mut Vec<Diagnostic>,
) -> Listen {
    let mut taken: Vec<(SocketAddr, Option<Place>)> = Vec::new();
    let mut proxy = Vec::new();
    match section.and_then(|section| Some((section, section.value.proxy.as_ref()?))) {
        Some((section, addresses)) => {
            for text in addresses {
                let place = section.at(text);
                let address = value::socket_address(text.get_ref(), place.clone(), findings);
                proxy.extend(address.map(Listener::at));
                taken.extend(address.map(|address| (address, Some(place))));
            }
        }
        None if listeners.is_empty() && section.is_none_or(|it| it.value.proxy_tls.is_none()) => {
            proxy.push(Listener::at(loopback(PROXY_PORT)));
            taken.push((loopback(PROXY_PORT), None));
        }
        None => {}
    }
    if let Some(section) = section {
        let written = section.value.proxy_tls.as_ref();
        let with_tls = written.and_then(|written| {
            let listener = with_tls(section, written, read, findings)?;
            Some((listener, section.at(&written.address)))
        });
        taken.extend(
            with_tls
                .as_ref()
                .map(|(listener, place)| (listener.address, Some(place.clone()))),
        );
        proxy.extend(with_tls.map(|(listener, _)| listener));
        let balancers = networks(section, &section.value.proxy_protocol, findings);
        for listener in &mut proxy {
            listener.balancers.clone_from(&balancers);
        }
    }
    for written in listeners {
        let before = proxy.iter().filter(|it| it.tls.is_some());
        let same = |address| before.filter(|it| it.address == address).count();
        let mut listener = listener(written, names, findings);
        if let (Some(listener), Some(section)) = (&mut listener, &written.value.tls) {
            let id = (listener.address, same(listener.address));
            listener.tls = tls::tls(written, section, id, read, findings).map(Arc::new);
        }
        let place = written.at(&written.value.address);
        taken.extend(
            listener
                .as_ref()
                .map(|listener| (listener.address, Some(place))),
        );
        proxy.extend(listener);
    }
    for (listener, (_, place)) in proxy.iter().zip(&taken) {
        warn_if_open(listener, place.as_ref(), names, findings);
    }
    refuse_no_listener(section, &taken, findings);
    let remote = section.and_then(|section| {
        let written = section.value.admin_tls.as_ref()?;
        admin_tls::admin_tls(section, written, read, findings)
    });
    let (admin_tls, place) = remote.unzip();
    let address = admin_tls.as_ref().map(|it| it.address);
    taken.extend(address.map(|address| (address, place)));
    let names = section.map(|it| admin_tls::names(it, &it.value.admin_names, findings));
    let admin = admin(section, &mut taken, findings);
    find_clashes(&taken, findings);
    Listen {
        proxy,
        admin,
        admin_tls: admin_tls.map(Arc::new),
        admin_names: names.unwrap_or_default(),
        control: control(section, findings),
    }
}

/// Reads `listen.proxy-tls`.
fn with_tls(
    section: &Placed<Section>,
    written: &ProxyTlsSection,
    read: &mut Vec<(PathBuf, String)>,
    findings: &mut Vec<Diagnostic>,
) -> Option<Listener> {
    let (text, place) = (written.address.get_ref(), section.at(&written.address));
    let address = value::socket_address(text, place, findings);
    let id = (address.unwrap_or(loopback(0)), 0);
    let tls = tls::tls(section, &written.tls(), id, read, findings);
    Some(Listener {
        tls: Some(Arc::new(tls?)),
        ..Listener::at(address?)
    })
}

/// Reads networks whose hosts are trusted as balancers.
fn networks<T>(
    section: &Placed<T>,
    written: &[Spanned<String>],
    findings: &mut Vec<Diagnostic>,
) -> Vec<IpNet> {
    let network = |text: &Spanned<String>| {
        let found = text.get_ref().parse::<IpNet>().ok();
        let found = found.or_else(|| {
            text.get_ref()
                .parse::<std::net::IpAddr>()
                .ok()
                .map(IpNet::from)
        });
        if found.is_none() {
            let message = format!("`{}` is not a network", value::shortened(text.get_ref()));
            let finding = Diagnostic::error("bad-address", section.at(text), message);
            findings.push(finding.help("write e.g. `10.0.0.0/8` or `10.2.0.7`"));
        }
        found
    };
    written.iter().filter_map(network).collect()
}

fn listener(
    written: &Placed<ListenerSection>,
    names: &Names<'_>,
    findings: &mut Vec<Diagnostic>,
) -> Option<Listener> {
    let ListenerSection {
        address,
        tier,
        user,
        groups,
        repository,
        identity,
        tls: _,
        proxy_protocol,
    } = &written.value;
    let identity = identity
        .as_ref()
        .and_then(|word| value::word(word.get_ref(), &IDENTITY, written.at(word), findings));
    Some(Listener {
        tier: tier
            .as_ref()
            .map(|tier| names.tier(written, tier, findings)),
        user: user
            .as_ref()
            .and_then(|user| names.user(written, user, findings)),
        groups: names.groups(written, groups, findings),
        repository: repository
            .as_ref()
            .and_then(|it| names.repository(written, it, findings)),
        identity: identity.unwrap_or_default(),
        tls: None,
        balancers: networks(written, proxy_protocol, findings),
        address: value::socket_address(address.get_ref(), written.at(address), findings)?,
    })
}

/// Warns about a listener that other machines reach: every host that reaches it can use it.
fn warn_if_open(
    listener: &Listener,
    place: Option<&Place>,
    names: &Names<'_>,
    findings: &mut Vec<Diagnostic>,
) {
    let Some(place) = place else { return };
    let required = listener.identity == IdentityDemand::Required;
    let asked = required || listener.asks_for_certificates();
    if !asked && !listener.address.ip().is_loopback() {
        let message = format!(
            "every client that can reach {} is a caller",
            listener.address
        );
        findings.push(
            Diagnostic::warning("listener-open", place.clone(), message)
                .label("not on loopback, and no client has to identify itself")
                .help("listen here with a `[[listener]]` that says `identity = \"required\"`"),
        );
    }
    let has_certificates = listener
        .tls
        .as_ref()
        .is_some_and(|tls| tls.clients.is_some());
    if required && !has_certificates && !names.has_credentials() {
        let message = "no client can identify itself: there is no user, session or issuer";
        findings.push(
            Diagnostic::warning("no-users", place.clone(), message)
                .label("every caller of this listener is refused")
                .help("write an `[[identity.user]]` or an `[[identity.issuer]]`"),
        );
    }
}

fn refuse_no_listener(
    section: Option<&Placed<Section>>,
    taken: &[(SocketAddr, Option<Place>)],
    findings: &mut Vec<Diagnostic>,
) {
    let Some(section) = section.filter(|_| taken.is_empty()) else {
        return;
    };
    if section.value.proxy.as_ref().is_some_and(Vec::is_empty) {
        let message = "no client can connect: `proxy` is empty and there is no `[[listener]]`";
        findings.push(Diagnostic::error("empty", section.place(), message));
    }
}

fn admin(
    section: Option<&Placed<Section>>,
    taken: &mut Vec<(SocketAddr, Option<Place>)>,
    findings: &mut Vec<Diagnostic>,
) -> Option<AdminAddress> {
    let written = section.and_then(|section| Some((section, section.value.admin.as_ref()?)));
    let Some((section, text)) = written else {
        taken.push((loopback(ADMIN_PORT), None));
        return Some(default_admin());
    };
    let place = section.at(text);
    if text.get_ref() == "none" {
        return None;
    }
    if let Some(path) = text.get_ref().strip_prefix("unix:") {
        return socket_path(section, path, place, findings);
    }
    let address = value::socket_address(text.get_ref(), place.clone(), findings)?;
    if !address.ip().is_loopback() {
        let message =
            format!("the admin listener is reachable from beyond this machine: {address}");
        findings.push(
            Diagnostic::warning("admin-exposed", place.clone(), message)
                .label("not on loopback")
                .help("write a loopback address, or `unix:/run/tidegate/admin.sock`"),
        );
    }
    taken.push((address, Some(place)));
    Some(AdminAddress::Tcp(address))
}

/// Reads `listen.control`; `Control { path: "" }` stands for none.
fn control(section: Option<&Placed<Section>>, findings: &mut Vec<Diagnostic>) -> Option<Control> {
    let (section, text) =
        section.and_then(|section| Some((section, section.value.control.as_ref()?)))?;
    let place = section.at(text);
    let written = true;
    if text.get_ref() == "none" {
        let path = PathBuf::new();
        return Some(Control { path, written });
    }
    let Some(path) = text.get_ref().strip_prefix("unix:") else {
        let message = "the control socket is a Unix socket";
        findings.push(
            Diagnostic::error("bad-address", place, message)
                .label("each client that opens it can start and revoke sessions")
                .help("write `unix:/PATH`, or `none`"),
        );
        return None;
    };
    match socket_path(section, path, place, findings)? {
        AdminAddress::Unix(path) => Some(Control { path, written }),
        AdminAddress::Tcp(_) => None,
    }
}

impl Listen {
    /// Sets the default control socket, which is beside the records.
    pub(super) fn control_beside(&mut self, records: Option<&Path>) {
        match &self.control {
            Some(control) if control.path.as_os_str().is_empty() => self.control = None,
            Some(_) => {}
            None => {
                let path = records.map(|file| super::folder_of(file).join("control.sock"));
                let fits = |path: &PathBuf| path.as_os_str().len() <= MAX_SOCKET_PATH_BYTES;
                let written = false;
                self.control = path.filter(fits).map(|path| Control { path, written });
            }
        }
    }
}

fn socket_path(
    section: &Placed<Section>,
    path: &str,
    place: Place,
    findings: &mut Vec<Diagnostic>,
) -> Option<AdminAddress> {
    let named = !path.is_empty() && !path.ends_with('/') && !path.contains('\0');
    let path = super::folder_of(&section.source.path).join(path);
    let long = path.as_os_str().len() > MAX_SOCKET_PATH_BYTES;
    if named && !long {
        return Some(AdminAddress::Unix(path));
    }
    let message = if long {
        "this path is too long for a socket"
    } else {
        "this names no socket"
    };
    findings.push(
        Diagnostic::error("bad-address", place, message).help(format!(
            "write `unix:/PATH` of at most {MAX_SOCKET_PATH_BYTES} bytes"
        )),
    );
    None
}

/// Reports two listeners that cannot both be bound. The admin listener is the last of `taken`.
fn find_clashes(taken: &[(SocketAddr, Option<Place>)], findings: &mut Vec<Diagnostic>) {
    for (index, (address, place)) in taken.iter().enumerate() {
        let mut before = taken.iter().take(index);
        let Some((_, first)) = before.find(|(other, _)| clash(*other, *address)) else {
            continue;
        };
        let by_default = if index + 1 == taken.len() && place.is_none() {
            "`admin`"
        } else {
            "`proxy`"
        };
        let (at, related) = match (place, first) {
            (Some(place), Some(first)) => (place, Some(first)),
            (Some(place), None) | (None, Some(place)) => (place, None),
            (None, None) => continue,
        };
        let message = format!("{address} is taken by another listener");
        let finding = Diagnostic::error("address-twice", at.clone(), message)
            .help("give each listener, the admin listener too, its own port");
        findings.push(match related {
            Some(first) => finding
                .label("here again")
                .related(first.clone(), "first taken here"),
            None => finding.label(format!("{by_default} of `[listen]` is here by default")),
        });
    }
}

/// Whether two addresses cannot both be bound; port 0 is any free one.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && one.port() != 0
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_clash_where_both_could_not_be_bound() {
        let clashes = |one: &str, other: &str| clash(one.parse().unwrap(), other.parse().unwrap());
        assert!(clashes("127.0.0.1:3128", "127.0.0.1:3128"));
        assert!(clashes("0.0.0.0:3128", "127.0.0.1:3128"));
        assert!(clashes("[::1]:3128", "[::]:3128"));
        assert!(!clashes("127.0.0.1:3128", "127.0.0.2:3128"));
        assert!(!clashes("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!clashes("0.0.0.0:3128", "[::]:3128"));
        assert!(!clashes("127.0.0.1:3128", "127.0.0.1:3130"));
    }
}
