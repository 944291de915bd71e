//! Runs the command in a jail: the same gate, and no other way out.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::app::Running;
use crate::config::{Config, Listener};
use crate::gate::session_facts;
use crate::jail::{self, Jailed, NotContained, Promise, Share};
use crate::name::Url;
use crate::proxy::{Inside, Tenant};
use crate::record::{Event, JailFacts};

use super::super::print;
use super::child::{self, Child};
use super::{Place, Session, loopback};

/// The address of the proxy inside: a jail has its own ports.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3128);
/// The address of the session's admin listener inside.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3130);
pub(super) const PLACE: Place = Place {
    proxy: ADDRESS,
    admin: ADMIN,
};
/// The captured ports, besides those in rules.
const USUAL: [u16; 3] = [22, 80, 443];
/// Maximum length of a note about a left-out file, in characters.
const MAX_NOTE: usize = 1_000;
/// Maximum number of concurrent clients.
const CONNECTIONS: usize = 4096;

/// The options of the jail.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// Paths that the user shares with the command.
    pub(super) shares: Vec<Share>,
    /// Promises that may be missing.
    pub(super) allow_missing: Vec<Promise>,
    /// Files that the command must not see.
    pub(super) hide: Vec<PathBuf>,
    /// Programs of the gate, which the command must not change.
    pub(super) programs: Vec<PathBuf>,
    /// Files that the command gets a copy of.
    pub(super) copies: Vec<PathBuf>,
}

/// Makes the jail, serves it and starts the command.
fn begin(
    running: &Running,
    session: &Session,
    child: &Child<'_>,
    options: &Options,
) -> Result<Jailed, NotContained> {
    let bundle = running.bundle.iter();
    let record = &running.config.record;
    let record = record.file.iter().chain(&record.key);
    let plan = jail::Plan {
        variables: child.variables(),
        ports: ports(&running.config),
        proxy_port: ADDRESS.port(),
        local: vec![ADMIN.port()],
        hide: record.chain(&options.hide).cloned().collect(),
        programs: options.programs.clone(),
        shares: options.shares.clone(),
        copies: bundle
            .flat_map(|it| [&it.whole, &it.own, &it.java])
            .chain(&options.copies)
            .cloned()
            .collect(),
        allow_missing: options.allow_missing.clone(),
        ..jail::Plan::of(child.words.to_vec())
    };
    jail::keep_to_ourselves()?;
    let (mut jailed, mut sockets) = child.limited(|| jail::start(&plan))?;
    session.family.command_is(jailed.pid());
    tell(running, session, &plan, &jailed);
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
    running.watch_jail(
        jailed.pid(),
        session_facts(&session.grant, None, &super::asker()),
    )?;
    Ok(jailed)
}

/// Prints that the jail is complete and where the command may write; prints and records the shared
/// paths and the missing promises.
fn tell(running: &Running, session: &Session, plan: &jail::Plan, jailed: &Jailed) {
    let shared: Vec<String> = plan.shares.iter().map(Share::to_string).collect();
    let missing = jailed.missing.iter().map(|one| one.promise.name());
    let missing: Vec<&'static str> = missing.collect();
    let writable = jailed
        .writable
        .iter()
        .map(|path| path.display().to_string());
    print::err(&format!(
        "tidegate: jail: no other way out; writable: {}\n",
        print::clean(&writable.collect::<Vec<_>>().join(", "), print::WIDTH)
    ));
    for note in &jailed.notes {
        print::err(&format!(
            "tidegate: jail: {}\n",
            print::clean(note, MAX_NOTE)
        ));
    }
    if !shared.is_empty() {
        print::err(&format!(
            "tidegate: shared: {}\n",
            print::clean(&shared.join(", "), print::WIDTH)
        ));
    }
    for one in &jailed.missing {
        print::err(&format!(
            "tidegate: missing: {} ({})\n",
            one.promise,
            print::clean(&one.why, print::WIDTH)
        ));
    }
    running
        .gate
        .recorder
        .event(&Event::JailStarted(Box::new(JailFacts {
            session: session.grant.session.clone(),
            shared: shared.into_iter().map(Into::into).collect(),
            missing: missing.into(),
        })));
}

/// Returns the variable that tells `tidegate doctor` which of the gate's folders must be absent.
pub(super) fn variable(config: &Config) -> (&'static str, String) {
    let files = config.path.iter().chain(&config.record.file);
    let real = files.filter_map(|file| file.canonicalize().ok());
    let folders = real.filter_map(|file| Some(file.parent()?.to_owned()));
    let joined = std::env::join_paths(folders).unwrap_or_default();
    (jail::VARIABLE, joined.to_string_lossy().into_owned())
}

/// Runs the command to its end.
pub(super) async fn run(
    running: &Running,
    session: &Session,
    child: &mut Child<'_>,
    options: &Options,
) -> Result<u8, NotContained> {
    let jailed = begin(running, session, child, options)?;
    let (stops, command) = (jailed.stops()?, jailed.pid());
    let stopping = tokio::task::spawn_blocking(move || child::stop_with(&stops, command));
    let code = child.wait_for(jailed.child(), command).await;
    drop(jailed);
    let _ = stopping.await;
    Ok(code)
}

/// Returns the captured ports: the usual ones, those of rules and of MCP servers, and the local
/// ones that the command's variables name.
fn ports(config: &Config) -> Vec<u16> {
    let rules = config.policy.rules.iter();
    let named = rules.flat_map(|rule| &rule.value.to.ports);
    let named = named.filter_map(|port| u16::try_from(*port.get_ref()).ok());
    let servers = config.policy.mcp.iter();
    let servers = servers.filter_map(|(_, server)| {
        let url = Url::parse(server.value.url.get_ref().as_bytes()).ok()?;
        Some(url.target.port)
    });
    let variables: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let variables = variables.iter().map(|(name, value)| (&**name, &**value));
    let wanted = named
        .chain(servers)
        .chain(loopback::ports(variables))
        .chain(USUAL);
    let mut ports: Vec<u16> = wanted.filter(|port| *port != 53).collect();
    ports.sort_unstable();
    ports.dedup();
    ports.retain(|port| ![ADDRESS.port(), ADMIN.port()].contains(port));
    ports
}

/// Returns the exit code if there is no jail; for a missing command, that of a shell.
pub(super) fn code(why: &NotContained) -> u8 {
    match why {
        NotContained::Command { program, error } => child::code_of(program, error),
        NotContained::View(_) => super::Answer::Wrong.code(),
        _ => super::Answer::NotContained.code(),
    }
}

/// Returns the remedy if the program, or its interpreter, is outside the view.
pub(super) fn hint(why: &NotContained) -> Option<String> {
    let NotContained::Command { program, error } = why else {
        return None;
    };
    let outside = error.kind() == std::io::ErrorKind::NotFound && program.is_file();
    outside.then(|| {
        "tidegate: the program or its interpreter lies in a folder that the jail does not show: \
         add --share FOLDER:ro\n"
            .to_owned()
    })
}
