//! A jail for a command: every way out of it is the gate.
//!
//! No root, container, forwarder or packet filter. A helper (this program again, single-threaded,
//! see [`enter`]) makes a user, a network and a mount namespace with nothing but a loopback
//! interface in it, and declares every address there is to be local. It binds listeners inside and
//! hands them out: what connects to any address in the jail is accepted by the gate, outside, which
//! sees where it was meant to go. A port without a listener refuses at once.
//!
//! ```text
//! let (mut jailed, sockets) = jail::start(&Plan { ports, ..Plan::of(words) })?;
//! proxy::serve_jail(&gate, Inside { sockets, listener, grant }, connections)?;
//! jailed.go()?;                       // only now does the command begin
//! let status = jailed.wait()?;        // jail::exit_code(status)
//! ```
//!
//! A jail that cannot be made is [`NotContained`]: the command never runs without it.

mod enter;
mod mounts;
mod routes;
mod sealed;
mod watch;
mod wire;

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, kill_process};

use wire::{Message, Orders};

pub use enter::enter;
pub use watch::{Fallen, WallState, Watch};

/// The hidden verb of the command line that becomes the command.
pub const VERB: &str = "jail-init";

/// The variable that says to a command that it is in a jail: the folders of the gate that must not be
/// there, as in `PATH`. It is no evidence: any program can set it.
pub const VARIABLE: &str = "TIDEGATE_JAIL";

/// What runs in a jail, and what is let through to the gate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// Variables that are set for it, beside those of this process.
    pub variables: Vec<(OsString, OsString)>,
    /// The ports whose connections are captured; a connection to any other is refused.
    pub ports: Vec<u16>,
    /// Where the proxy is inside, on 127.0.0.1; 0: a free port.
    pub proxy_port: u16,
    /// More ports on 127.0.0.1 whose listeners are handed out, beside the proxy's.
    pub local: Vec<u16>,
    /// Files and folders that are not to be seen inside: an admin or control socket, the records.
    pub hide: Vec<PathBuf>,
    /// The program that knows the verb [`VERB`]; none: this one.
    pub helper: Option<PathBuf>,
}

impl Plan {
    /// A command, the usual ports captured, nothing hidden.
    pub fn of(command: Vec<OsString>) -> Self {
        Self {
            command,
            variables: Vec::new(),
            ports: vec![22, 80, 443],
            proxy_port: 0,
            local: Vec::new(),
            hide: Vec::new(),
            helper: None,
        }
    }
}

/// Why there is no jail, and so nothing was run. `tidegate exec` answers it with exit code 3.
#[derive(Debug, thiserror::Error)]
pub enum NotContained {
    /// The system does not let this user make one.
    #[error(
        "this system lets {who} make no {what} ({error}): allow user namespaces \
         (`user.max_user_namespaces`, `kernel.apparmor_restrict_unprivileged_userns`, \
         the seccomp profile of the container), or run without --jail"
    )]
    Forbidden {
        /// Who was not allowed.
        who: &'static str,
        /// What was not allowed.
        what: String,
        /// What the system said.
        error: String,
    },
    /// A step failed.
    #[error("the jail could not be made: {0}")]
    Failed(String),
    /// The command itself could not be begun.
    #[error("{}: {error}", program.display())]
    Command {
        /// What was to be run.
        program: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The helper could not be started or talked to.
    #[error("the jail could not be made: {0}")]
    Helper(#[from] io::Error),
}

/// A jail that stands, and whose command waits for [`Jailed::go`].
#[derive(Debug)]
pub struct Jailed {
    /// Where the proxy is inside, for the variables of the command.
    pub proxy_address: SocketAddr,
    child: Child,
    control: OwnedFd,
}

/// What a jail hands out; non-blocking.
#[derive(Debug)]
pub struct Sockets {
    /// Accepts what asks the proxy by its address inside.
    pub proxy: TcpListener,
    /// Accept what connects to [`Plan::local`], in its order.
    pub local: Vec<TcpListener>,
    /// Accept whatever else connects: `local_addr()` of what they accept is where it wanted to go.
    pub captured: Vec<TcpListener>,
    /// Hears questions to any name server.
    pub dns: UdpSocket,
    /// Hears those that come over TCP.
    pub dns_tcp: TcpListener,
}

/// Makes a jail. Blocks for some milliseconds: asynchronous callers use a thread for it.
pub fn start(plan: &Plan) -> Result<(Jailed, Sockets), NotContained> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(io::Error::from)?;
    let mut child = helper(plan).stdin(Stdio::from(theirs)).spawn()?;
    match prepare(plan, &ours) {
        Ok(sockets) => {
            let jailed = Jailed {
                proxy_address: sockets.proxy.local_addr()?,
                child,
                control: ours,
            };
            Ok((jailed, sockets))
        }
        Err(error) => {
            // Without a jail there is nothing to spare.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

fn helper(plan: &Plan) -> Command {
    let program = plan.helper.clone();
    let mut command = Command::new(program.unwrap_or_else(|| "/proc/self/exe".into()));
    command.arg(VERB).arg("--").args(&plan.command);
    command.envs(plan.variables.iter().map(|(name, value)| (name, value)));
    command
}

fn prepare(plan: &Plan, control: &OwnedFd) -> Result<Sockets, NotContained> {
    let orders = Orders {
        ports: plan.ports.clone(),
        proxy_port: plan.proxy_port,
        local: plan.local.clone(),
        hide: plan.hide.clone(),
    };
    // The helper's own standard input is the socket: the command's goes over it.
    let stdin = io::stdin();
    wire::send(control, &Message::Orders(orders), &[stdin.as_fd()])?;
    let (message, descriptors) = wire::receive(control)?;
    match message {
        Some(Message::Ready { local, captured }) => Ok(Sockets::of(descriptors, local, captured)?),
        other => Err(why_not(other)),
    }
}

fn why_not(message: Option<Message>) -> NotContained {
    match message {
        Some(Message::Forbidden { what, error }) => NotContained::Forbidden {
            who: if rustix::process::geteuid().is_root() {
                "root"
            } else {
                "ordinary users"
            },
            what,
            error,
        },
        Some(Message::Failed(why)) => NotContained::Failed(why),
        Some(Message::NoCommand { program, error }) => NotContained::Command {
            program,
            error: io::Error::from_raw_os_error(error),
        },
        _ => NotContained::Failed("its helper ended before it was ready".into()),
    }
}

impl Sockets {
    /// From what came out of the jail, in the order of [`wire::Message::Ready`].
    fn of(descriptors: Vec<OwnedFd>, local: usize, captured: usize) -> io::Result<Self> {
        let mut rest = descriptors.into_iter();
        let mut next = || rest.next().ok_or(io::ErrorKind::UnexpectedEof);
        let this = Self {
            proxy: next()?.into(),
            dns: next()?.into(),
            dns_tcp: next()?.into(),
            local: rest.by_ref().take(local).map(TcpListener::from).collect(),
            captured: rest.map(TcpListener::from).collect(),
        };
        if this.captured.len() != captured || this.local.len() != local {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let own = this.local.iter().chain([&this.proxy, &this.dns_tcp]);
        for listener in this.captured.iter().chain(own) {
            listener.set_nonblocking(true)?;
        }
        this.dns.set_nonblocking(true)?;
        Ok(this)
    }
}

impl Jailed {
    /// Lets the command begin; returns when it has, or could not.
    pub fn go(&mut self) -> Result<(), NotContained> {
        wire::send(&self.control, &Message::Go, &[])?;
        match wire::receive(&self.control)? {
            // The socket closes when the command takes the helper's place.
            (None, _) => Ok(()),
            (message, _) => Err(why_not(message)),
        }
    }

    /// The process of the command, as seen from outside.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Passes a signal on to the command.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for the end of the command.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// As [`Jailed::wait`], without waiting.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
}

impl Drop for Jailed {
    /// A command that never began does not outlive its gate; one that began has no way out without
    /// it.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The exit code that a shell would give: the command's own, or 128 and the signal that ended it.
pub fn exit_code(status: ExitStatus) -> u8 {
    let signal = status.signal().map(|signal| 128 + signal);
    let code = status.code().or(signal).unwrap_or(255);
    u8::try_from(code).unwrap_or(255)
}

/// What no other process may look into: the gate, while a jail is below it.
pub fn keep_to_ourselves() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
