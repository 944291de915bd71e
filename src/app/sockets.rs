//! Listeners: inherited from the service manager if it holds them, bound at the start otherwise.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use listenfd::ListenFd;
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use tokio::net::{TcpListener, UnixListener};

use crate::admin::AdminListener;
use crate::config::{AdminAddress, AdminTls, Control, Listen, Listener};
use crate::dial::Split;
use crate::proxy;

/// Every bound listener.
pub(super) struct Bound {
    /// The listeners for callers.
    pub(super) proxies: Vec<proxy::Bound>,
    /// The admin listener.
    pub(super) admin: Option<AdminListener>,
    /// The listener of the remote admin address, and its configuration.
    pub(super) remote: Option<(AdminListener, Arc<AdminTls>)>,
    /// The control socket, for starting and revoking sessions.
    pub(super) control: Option<AdminListener>,
    admin_address: Option<SocketAddr>,
    remote_address: Option<SocketAddr>,
}

impl Bound {
    /// Takes inherited sockets by their address, and binds the others.
    pub(super) fn new(listen: &Listen) -> anyhow::Result<Self> {
        let mut inherited = inherited()?;
        let mut proxies = Vec::new();
        for listener in &listen.proxy {
            let socket = take_or_bind(&mut inherited, listener.address)?;
            let address = socket.local_addr()?;
            let listener = Arc::new(Listener {
                address,
                ..listener.clone()
            });
            proxies.push(proxy::Bound::open(socket, listener));
        }
        let (admin, admin_address) = match &listen.admin {
            None => (None, None),
            Some(AdminAddress::Tcp(address)) => {
                let socket = take_or_bind(&mut inherited, *address)?;
                let address = socket.local_addr()?;
                (Some(AdminListener::Tcp(socket)), Some(address))
            }
            Some(AdminAddress::Unix(path)) => (Some(AdminListener::Unix(bind_unix(path)?)), None),
        };
        let (mut remote, mut remote_address) = (None, None);
        if let Some(written) = &listen.admin_tls {
            let socket = take_or_bind(&mut inherited, written.address)?;
            remote_address = Some(socket.local_addr()?);
            remote = Some((AdminListener::Tls(socket), written.clone()));
        }
        if let Some(left) = inherited.first() {
            bail!(
                "the service manager passed a socket on {}, but no listener has this address",
                left.0
            );
        }
        Ok(Self {
            proxies,
            control: bind_control(listen.control.as_ref())?,
            admin,
            remote,
            admin_address,
            remote_address,
        })
    }

    /// The addresses of the listeners: part of the floor.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let proxies = self.proxies.iter().map(|bound| bound.listener.address);
        let admins = self.admin_address.into_iter().chain(self.remote_address);
        proxies.chain(admins).collect()
    }

    /// The TCP address of the remote admin listener.
    pub(super) fn remote_address(&self) -> Option<SocketAddr> {
        self.remote_address
    }

    /// The TCP address of the admin listener, if it has one.
    pub(super) fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }
}

fn inherited() -> anyhow::Result<Vec<(SocketAddr, std::net::TcpListener)>> {
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for at in 0..passed.len() {
        if let Some(socket) = passed
            .take_tcp_listener(at)
            .context("an inherited socket")?
        {
            sockets.push((socket.local_addr()?, socket));
        }
    }
    Ok(sockets)
}

fn take_or_bind(
    inherited: &mut Vec<(SocketAddr, std::net::TcpListener)>,
    address: SocketAddr,
) -> anyhow::Result<TcpListener> {
    if let Some(at) = inherited.iter().position(|(bound, _)| *bound == address) {
        let (_, socket) = inherited.swap_remove(at);
        socket.set_nonblocking(true)?;
        return Ok(TcpListener::from_std(socket)?);
    }
    proxy::bind(address).with_context(|| format!("cannot listen on {address}"))
}

/// Binds the control socket. A socket at the default path may be missing: another gate holds it, or
/// the folder is read-only.
fn bind_control(control: Option<&Control>) -> anyhow::Result<Option<AdminListener>> {
    let Some(Control { path, written }) = control else {
        return Ok(None);
    };
    if let Some(folder) = path.parent().filter(|_| !written) {
        let _ = fs::create_dir_all(folder);
    }
    match bind_unix(path) {
        Ok(socket) => Ok(Some(AdminListener::Unix(socket))),
        Err(error) if *written => Err(error),
        Err(error) => {
            tracing::warn!("no control socket: {error:#}");
            Ok(None)
        }
    }
}

/// Binds a Unix socket, and first removes the socket file of a dead process. The file stays if its
/// process answers, or may be alive (no permission to connect, another socket type).
fn bind_unix(path: &Path) -> anyhow::Result<UnixListener> {
    let stale = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let refused = || {
        let connected = std::os::unix::net::UnixStream::connect(path);
        connected.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    if stale && refused() {
        fs::remove_file(path)?;
    }
    // No other user may connect, not even between the creation of the file and `set_permissions`.
    let before = umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    let socket = bound.with_context(|| format!("cannot listen on unix:{}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(socket)
}

/// Raises the descriptor limit to the hard limit, and returns the new limit.
pub(super) fn raise_descriptors() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    let raised = setrlimit(Resource::Nofile, wanted).is_ok();
    let now = if raised { maximum } else { current };
    now.map_or(usize::MAX, |now| usize::try_from(now).unwrap_or(usize::MAX))
}

/// The number of clients that may be connected at once: upstream connections have their own budget.
pub(super) fn connections(flows: usize, descriptors: usize) -> usize {
    Split::of(descriptors, flows).clients
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[tokio::test]
    async fn a_dead_socket_file_is_replaced_and_a_live_one_is_not() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("admin.sock");
        drop(bind_unix(&path).unwrap());
        let live = bind_unix(&path).unwrap();
        assert!(bind_unix(&path).is_err());
        drop(live);
        let other = folder.path().join("other.sock");
        let _lives = std::os::unix::net::UnixDatagram::bind(&other)?;
        assert!(bind_unix(&other).is_err());
        assert!(
            std::os::unix::net::UnixDatagram::unbound()?
                .connect(&other)
                .is_ok()
        );
        Ok(())
    }
}
