//! The command in a jail: the same gate, and no other way out.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::app::Running;
use crate::config::{AdminAddress, Config, Listener};
use crate::gate::session_facts;
use crate::jail::{self, Jailed, NotContained};
use crate::proxy::{Inside, Tenant};

use super::child::{self, Child};
use super::{Place, Session};

/// Where the proxy is inside: a jail has its own ports.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3128);
/// Where its session speaks for itself inside.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3130);
pub(super) const PLACE: Place = Place {
    proxy: ADDRESS,
    admin: ADMIN,
};
/// The ports that are captured, beside those that rules name.
const USUAL: [u16; 3] = [22, 80, 443];
/// Clients that may be connected at once.
const CONNECTIONS: usize = 4096;

/// Makes the jail, serves it and lets the command begin.
pub(super) fn begin(
    running: &Running,
    session: &Session,
    child: &Child<'_>,
    hide: &[PathBuf],
) -> Result<Jailed, NotContained> {
    let record = running.config.record.file.iter();
    let hide = record
        .chain(hide)
        .filter_map(|path| path.canonicalize().ok());
    let plan = jail::Plan {
        variables: child.variables(),
        ports: ports(&running.config),
        proxy_port: ADDRESS.port(),
        local: vec![ADMIN.port()],
        hide: hide.collect(),
        ..jail::Plan::of(child.words.to_vec())
    };
    jail::keep_to_ourselves()?;
    let (mut jailed, mut sockets) = child.limited(|| jail::start(&plan))?;
    session.family.command_is(jailed.pid());
    for admin in sockets.local.drain(..) {
        running.serve_admin(TcpListener::from_std(admin)?);
    }
    let inside = Inside {
        sockets,
        listener: Arc::new(Listener::at(ADDRESS)),
        tenant: Some(Tenant {
            alone: true,
            ..session.tenant()
        }),
    };
    running.serve_jail(inside, CONNECTIONS)?;
    jailed.go()?;
    running.watch_jail(jailed.pid(), session_facts(&session.grant, None))?;
    Ok(jailed)
}

/// The variable that tells `tidegate doctor` what to look for inside: the gate's folders.
pub(super) fn variable(config: &Config) -> (&'static str, String) {
    let files = config.path.iter().chain(&config.record.file);
    let real = files.filter_map(|file| file.canonicalize().ok());
    let folders = real.filter_map(|file| Some(file.parent()?.to_owned()));
    let joined = std::env::join_paths(folders).unwrap_or_default();
    (jail::VARIABLE, joined.to_string_lossy().into_owned())
}

/// Runs it to its end.
pub(super) async fn run(
    running: &Running,
    session: &Session,
    child: &mut Child<'_>,
    hide: &[PathBuf],
) -> Result<u8, NotContained> {
    let jailed = begin(running, session, child, hide)?;
    let code = child.wait_for(jailed.pid()).await;
    drop(jailed);
    Ok(code)
}

/// What a command is not to see of a gate that runs beside: its records, where it is asked, and the
/// keys of inspection.
pub(super) fn hidden(config: &Config) -> Vec<PathBuf> {
    let listen = &config.listen;
    let admin = listen.admin.as_ref().and_then(|admin| match admin {
        AdminAddress::Unix(path) => Some(path),
        AdminAddress::Tcp(_) => None,
    });
    let control = listen.control.as_ref().map(|control| &control.path);
    // With it, a command could vouch for anything that it wants to be taken for.
    let vouching = config.inspect.authority.iter().map(|it| &it.key);
    let hashing = config.inspect.credential_key.iter().map(|it| &it.path);
    let places = admin.into_iter().chain(control).chain(&config.record.file);
    let places = places.chain(vouching).chain(hashing);
    places.cloned().collect()
}

fn ports(config: &Config) -> Vec<u16> {
    let rules = config.policy.rules.iter();
    let named = rules.flat_map(|rule| &rule.value.ports);
    let named = named.filter_map(|port| u16::try_from(*port.get_ref()).ok());
    let mut ports: Vec<u16> = named.chain(USUAL).filter(|port| *port != 53).collect();
    ports.sort_unstable();
    ports.dedup();
    ports.retain(|port| ![ADDRESS.port(), ADMIN.port()].contains(port));
    ports
}

/// What is answered where there is no jail; what a shell answers where there is no such command.
pub(super) fn code(why: &NotContained) -> u8 {
    match why {
        NotContained::Command { program, error } => child::code_of(program, error),
        _ => super::Answer::NotContained.code(),
    }
}
