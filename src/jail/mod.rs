//! A jail for a command: every way out of it is the gate.
//!
//! The jail needs no root, container, forwarder or packet filter. A helper (this program again, see
//! [`enter`]) makes namespaces: of users, of the network, of mounts, of processes and of IPC. The
//! network has only a loopback interface, to which every address is local. The helper binds
//! listeners inside and passes them to the gate, which accepts connections to any address in the
//! jail, and sees their destination. A port without a listener refuses at once. The file system is
//! built for the command: its working copy, the programs of the system, folders in memory.
//!
//! The helper has three stages, each this program again: [`enter`] makes the namespaces and waits
//! outside; its child is process 1 inside, makes the mounts and reaps orphans; the grandchild drops
//! privileges and executes the command.
//!
//! ```text
//! let (mut jailed, sockets) = jail::start(&Plan { ports, ..Plan::of(words) })?;
//! proxy::serve_jail(&gate, Inside { sockets, listener, grant }, connections)?;
//! jailed.go()?;                       // only now does the command begin
//! let status = jailed.wait()?;        // jail::exit_code(status)
//! ```
//!
//! If a jail cannot be made, the result is [`NotContained`]: the command never runs without it.
//! [`Promise`] lists the guarantees of a jail; a promise that this kernel does not support is an
//! error unless [`Plan::allow_missing`] names it.

mod begin;
mod descriptors;
mod enter;
mod environment;
mod landlock;
mod listen;
mod promise;
mod refused;
mod routes;
mod sealed;
mod system_calls;
mod tend;
mod view;
mod watch;
mod wire;

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use rustix::process::{Pid, Signal, kill_process};

use descriptors::{Lifeline, Streams};
use view::View;
use wire::{Message, Orders, Walls};

pub use enter::enter;
pub use promise::{Missing, Promise};
pub use refused::{PACKET_SIZE, RefusedConnection};
pub use view::{Share, planted};
pub use watch::{Fallen, WallState, Watch};

/// The hidden command of the command line that executes the jailed command.
pub const VERB: &str = "jail-init";

/// The variable that marks a jail for the command: the folders of the gate that must be absent,
/// separated as in `PATH`. The variable is no evidence: any program can set it.
pub const VARIABLE: &str = "TIDEGATE_JAIL";

/// Exit codes of the helper: not contained, and a command that cannot be executed.
const NOT_CONTAINED: u8 = 3;
const NOT_RUN: u8 = 127;

/// Time limit of one step of making a jail.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A stage of the helper.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stage {
    /// Outside: makes the namespaces.
    #[default]
    Namespaces,
    /// The first process inside.
    Init,
    /// Executes the command.
    Command,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Init => "init",
            Self::Command => "command",
        }
    }
}

impl std::str::FromStr for Stage {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Namespaces, Self::Init, Self::Command]
            .into_iter()
            .find(|stage| stage.name() == name)
            .ok_or("no such stage")
    }
}

/// The command of a jail, and the connections that reach the gate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// Variables for the command, besides those of this process.
    pub variables: Vec<(OsString, OsString)>,
    /// The ports whose connections are captured; a connection to any other is refused.
    pub ports: Vec<u16>,
    /// The port of the proxy inside, on 127.0.0.1; 0: a free port.
    pub proxy_port: u16,
    /// More ports on 127.0.0.1 with listeners for the gate, besides the proxy's.
    pub local: Vec<u16>,
    /// Files of the gate (policy, records, keys) that must not exist inside; with each, its folder.
    pub hide: Vec<PathBuf>,
    /// Programs that the gate starts, which the command must not be able to change.
    pub programs: Vec<PathBuf>,
    /// Paths that the user shares with the command.
    pub shares: Vec<Share>,
    /// Files of the gate that the command may read: each gets a copy at the same path.
    pub copies: Vec<PathBuf>,
    /// Promises that may be missing on this kernel.
    pub allow_missing: Vec<Promise>,
    /// The program with the command [`VERB`]; `None`: this one.
    pub helper: Option<PathBuf>,
}

impl Plan {
    /// Returns a plan for a command, with the usual ports captured, nothing hidden and nothing
    /// shared.
    pub fn of(command: Vec<OsString>) -> Self {
        Self {
            command,
            variables: Vec::new(),
            ports: vec![22, 80, 443],
            proxy_port: 0,
            local: Vec::new(),
            hide: Vec::new(),
            programs: Vec::new(),
            shares: Vec::new(),
            copies: Vec::new(),
            allow_missing: Vec::new(),
            helper: None,
        }
    }

    fn view(&self) -> Result<View, NotContained> {
        let request = view::Request {
            directory: std::env::current_dir()?,
            came_by: std::env::var_os("PWD").map(PathBuf::from),
            home: std::env::var_os("HOME").map(PathBuf::from),
            program: self.command.first(),
            shares: &self.shares,
            hide: &self.hide,
            programs: &self.programs,
            copies: &self.copies,
        };
        view::plan(&request).map_err(NotContained::View)
    }

    /// Returns the shared paths, without symbolic links.
    fn shared(&self) -> Vec<PathBuf> {
        let paths = self.shares.iter().map(|share| &share.path);
        paths.filter_map(|path| path.canonicalize().ok()).collect()
    }
}

/// Why there is no jail and the command was not run. `tidegate exec` then exits with 3.
#[derive(Debug, thiserror::Error)]
pub enum NotContained {
    /// The system does not let this user make one.
    #[error(
        "this system does not permit {who} to use {what} ({error}): allow user namespaces \
         (`user.max_user_namespaces`, `kernel.apparmor_restrict_unprivileged_userns`, \
         the seccomp profile of the container), or run without --jail"
    )]
    Forbidden {
        /// The user or users without permission.
        who: &'static str,
        /// The object that was not permitted.
        what: String,
        /// The error of the system.
        error: String,
    },
    /// This kernel does not support a promise.
    #[error(
        "this kernel does not give the promise `{}` ({}): it needs {}. Use a kernel that has it, \
         or run without this promise: --allow-missing={}",
        .0.promise, .0.why, .0.promise.requirement(), .0.promise
    )]
    Missing(Missing),
    /// A jail cannot contain another one.
    #[error(
        "already in a jail ({VARIABLE} is set), where no other can be made ({0}): run the command \
         without `exec --jail`. The gate of this jail decides for it as well"
    )]
    Nested(String),
    /// Hidden files cannot be kept apart from files that the command sees. `tidegate exec` then
    /// exits with 2.
    #[error("{0}")]
    View(String),
    /// A step failed.
    #[error("the jail could not be made: {0}")]
    Failed(String),
    /// The command itself could not be started.
    #[error("{}: {error}", program.display())]
    Command {
        /// The program of the command.
        program: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The helper could not be started, or the connection to it failed.
    #[error("the jail could not be made: {0}")]
    Helper(#[from] io::Error),
}

/// A complete jail, whose command waits for [`Jailed::go`].
#[derive(Debug)]
pub struct Jailed {
    /// The address of the proxy inside, for the variables of the command.
    pub proxy_address: SocketAddr,
    /// The promises that this kernel does not support, each allowed by [`Plan::allow_missing`].
    pub missing: Vec<Missing>,
    /// The folders outside in which the command may write.
    pub writable: Vec<PathBuf>,
    /// Notes on left-out files, with the option that shows each.
    pub notes: Vec<String>,
    child: Child,
    /// The process that executes the command.
    command: Pid,
    control: OwnedFd,
    lifeline: Lifeline,
    stdin: OwnedFd,
    walls: Walls,
    /// Threads that copy the output of the command to sockets outside.
    copiers: Vec<JoinHandle<()>>,
}

/// The sockets of a jail; non-blocking.
#[derive(Debug)]
pub struct Sockets {
    /// Accepts connections to the proxy's address inside.
    pub proxy: TcpListener,
    /// Accept connections to [`Plan::local`], in its order.
    pub local: Vec<TcpListener>,
    /// Accept every other connection: `local_addr()` of the accepted socket is its destination.
    pub captured: Vec<TcpListener>,
    /// Receives queries to any name server.
    pub dns: UdpSocket,
    /// Receives queries over TCP.
    pub dns_tcp: TcpListener,
    /// Packet sockets, with the type of a datagram reader: each packet is for
    /// [`RefusedConnection::parse`]. Empty if this kernel does not support [`Promise::Refusals`].
    pub refused: Vec<UdpSocket>,
}

/// Makes a jail. Blocks for some milliseconds: asynchronous callers use a thread for it.
pub fn start(plan: &Plan) -> Result<(Jailed, Sockets), NotContained> {
    let in_jail = std::env::var_os(VARIABLE).is_some();
    make(plan).map_err(|why| match why {
        NotContained::Forbidden { what, error, .. } if in_jail => {
            NotContained::Nested(format!("{what}: {error}"))
        }
        NotContained::Failed(why) if in_jail => NotContained::Nested(why),
        NotContained::Missing(missing) if in_jail => NotContained::Nested(missing.why.clone()),
        other => other,
    })
}

fn make(plan: &Plan) -> Result<(Jailed, Sockets), NotContained> {
    let mut view = plan.view()?;
    let notes = std::mem::take(&mut view.notes);
    let places = view.places.iter();
    let writable = places.filter(|(_, is)| matches!(is, view::Content::Writable));
    let writable = writable.map(|(path, _)| path.clone()).collect();
    let walls = Walls {
        writable: view.writable(),
        missing: Vec::new(),
        own_session: false,
    };
    let mut streams = Streams::of_this_process()?;
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(io::Error::from)?;
    // The kernel then adds the sender's process id to each message, in the numbers of this
    // namespace.
    sockopt::set_socket_passcred(&ours, true).map_err(io::Error::from)?;
    // A path on a file system that does not answer aborts the jail.
    sockopt::set_socket_timeout(&ours, sockopt::Timeout::Recv, Some(START_TIMEOUT))
        .map_err(io::Error::from)?;
    let (lifeline, its_lifeline) = Lifeline::pair()?;
    let mut helper = helper(plan, &mut streams);
    let child = helper.stdin(Stdio::from(theirs)).spawn()?;
    drop(helper);
    let mut starting = Starting {
        child: Some(child),
        control: &ours,
        walls,
        missing: Vec::new(),
    };
    let orders = Box::new(Orders {
        ports: plan.ports.clone(),
        proxy_port: plan.proxy_port,
        local: plan.local.clone(),
        view,
    });
    let sockets = starting.prepare(plan, orders, its_lifeline)?;
    let command = starting.command()?;
    let proxy_address = sockets.proxy.local_addr()?;
    let missing = std::mem::take(&mut starting.missing);
    let (child, walls) = starting.done()?;
    drop(starting);
    let jailed = Jailed {
        proxy_address,
        missing,
        writable,
        notes,
        child,
        command,
        control: ours,
        lifeline,
        stdin: streams.stdin,
        walls,
        copiers: streams.copiers,
    };
    Ok((jailed, sockets))
}

fn helper(plan: &Plan, streams: &mut Streams) -> Command {
    let program = plan.helper.clone();
    let mut command = Command::new(program.unwrap_or_else(|| "/proc/self/exe".into()));
    command.args([VERB, "--"]).args(&plan.command);
    for name in environment::removed(&plan.shared()) {
        command.env_remove(name);
    }
    command.envs(plan.variables.iter().map(|(name, value)| (name, value)));
    if let Some(stdout) = streams.stdout.take() {
        command.stdout(stdout);
    }
    if let Some(stderr) = streams.stderr.take() {
        command.stderr(stderr);
    }
    command
}

/// A jail that is being made; it is ended completely unless it is finished.
struct Starting<'a> {
    child: Option<Child>,
    control: &'a OwnedFd,
    walls: Walls,
    missing: Vec<Missing>,
}

impl Starting<'_> {
    fn prepare(
        &mut self,
        plan: &Plan,
        orders: Box<Orders>,
        lifeline: OwnedFd,
    ) -> Result<Sockets, NotContained> {
        match wire::receive(self.control)?.0 {
            Some(Message::Namespaces(missing)) => self.allow(plan, missing)?,
            other => return Err(why_not(other)),
        }
        wire::send(self.control, &Message::Orders(orders), &[lifeline.as_fd()])?;
        drop(lifeline);
        let (message, descriptors) = wire::receive(self.control)?;
        match message {
            Some(Message::Ready {
                refused,
                local,
                captured,
                missing,
                own_session,
            }) => {
                self.walls.own_session = own_session;
                self.allow(plan, missing)?;
                Ok(Sockets::of(descriptors, refused, local, captured)?)
            }
            other => Err(why_not(other)),
        }
    }

    /// Accepts missing promises that the plan allows.
    fn allow(&mut self, plan: &Plan, missing: Vec<Missing>) -> Result<(), NotContained> {
        for one in missing {
            if !plan.allow_missing.contains(&one.promise) {
                return Err(NotContained::Missing(one));
            }
            self.walls.missing.push(one.promise);
            if self
                .missing
                .iter()
                .all(|other| other.promise != one.promise)
            {
                self.missing.push(one);
            }
        }
        Ok(())
    }

    /// Returns the process that executes the command, as seen from outside.
    fn command(&self) -> Result<Pid, NotContained> {
        let received = wire::receive_from(self.control)?;
        match (received.message, received.sender) {
            (Some(Message::Waiting), Some(pid)) => Ok(pid),
            (other, _) => Err(why_not(other)),
        }
    }

    fn done(&mut self) -> io::Result<(Child, Walls)> {
        let child = self.child.take().ok_or(io::ErrorKind::NotFound)?;
        let walls = Walls {
            writable: std::mem::take(&mut self.walls.writable),
            missing: std::mem::take(&mut self.walls.missing),
            own_session: self.walls.own_session,
        };
        Ok((child, walls))
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
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
    /// Makes the sockets from the received descriptors, in the order of [`wire::Message::Ready`].
    fn of(
        descriptors: Vec<OwnedFd>,
        refused: usize,
        local: usize,
        captured: usize,
    ) -> io::Result<Self> {
        let mut rest = descriptors.into_iter();
        let mut next = || rest.next().ok_or(io::ErrorKind::UnexpectedEof);
        let this = Self {
            proxy: next()?.into(),
            dns: next()?.into(),
            dns_tcp: next()?.into(),
            refused: rest.by_ref().take(refused).map(UdpSocket::from).collect(),
            local: rest.by_ref().take(local).map(TcpListener::from).collect(),
            captured: rest.map(TcpListener::from).collect(),
        };
        let counts = [this.refused.len(), this.local.len(), this.captured.len()];
        if counts != [refused, local, captured] {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let own = this.local.iter().chain([&this.proxy, &this.dns_tcp]);
        for listener in this.captured.iter().chain(own) {
            listener.set_nonblocking(true)?;
        }
        for packets in &this.refused {
            packets.set_nonblocking(true)?;
        }
        this.dns.set_nonblocking(true)?;
        Ok(this)
    }
}

impl Jailed {
    /// Starts the command; returns when it has started, or failed to.
    pub fn go(&mut self) -> Result<(), NotContained> {
        let walls = Message::Go(Walls {
            writable: self.walls.writable.clone(),
            missing: self.walls.missing.clone(),
            own_session: self.walls.own_session,
        });
        wire::send(&self.control, &walls, &[self.stdin.as_fd()])?;
        match wire::receive(&self.control)? {
            // The socket closes when the command replaces the helper.
            (None, _) => Ok(()),
            (message, _) => Err(why_not(message)),
        }
    }

    /// Returns the process of the command, as seen from outside.
    pub fn pid(&self) -> u32 {
        self.command.as_raw_nonzero().get().unsigned_abs()
    }

    /// Returns the child of this process to wait for: it ends with the jail, with the command's
    /// code.
    pub fn child(&self) -> u32 {
        self.child.id()
    }

    /// Forwards a signal to the command.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(self.command, signal)?)
    }

    /// Returns a receiver that notices when the command stops, e.g. by `kill -STOP`.
    pub fn stops(&self) -> io::Result<Stops> {
        Ok(Stops(self.lifeline.another()?))
    }

    /// Waits for the end of the command.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait()?;
        self.finish();
        Ok(status)
    }

    /// Like [`Jailed::wait`], without waiting.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() {
            self.finish();
        }
        Ok(status)
    }

    /// Waits until all output of the command has been copied.
    fn finish(&mut self) {
        for copier in self.copiers.drain(..) {
            let _ = copier.join();
        }
    }
}

/// Notices when a command stops.
#[derive(Debug)]
pub struct Stops(Lifeline);

impl Stops {
    /// Waits until the command stops; `false` if the jail has ended.
    pub fn wait(&self) -> bool {
        self.0.hear()
    }
}

impl Drop for Jailed {
    /// A command does not outlive its gate: the jail ends with its first process.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        self.finish();
    }
}

/// Returns the exit code that a shell would give: the command's own, or 128 and the signal that
/// ended it.
pub fn exit_code(status: ExitStatus) -> u8 {
    let signal = status.signal().map(|signal| 128 + signal);
    let code = status.code().or(signal).unwrap_or(255);
    u8::try_from(code).unwrap_or(255)
}

/// Makes this process unreadable for others: the gate, while a jail is below it.
pub fn keep_to_ourselves() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
