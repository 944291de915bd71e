//! The helper: makes the jail round itself, hands the sockets out, becomes the command.
//!
//! It runs before any runtime starts: a user namespace is made by a single thread only.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::thread::UnshareFlags;
use socket2::{Domain, Socket, Type};

use super::wire::{self, MOST, Message, Orders};
use super::{mounts, routes, sealed};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// Not contained, and a command that cannot be run, as shells say it.
const NOT_CONTAINED: u8 = 3;
const NOT_RUN: u8 = 127;

/// Becomes the command, in a jail; returns only where it could not.
pub fn enter(command: &[OsString]) -> ExitCode {
    let Ok(control) = io::stdin().as_fd().try_clone_to_owned() else {
        return NOT_CONTAINED.into();
    };
    let (why, code) = match become_it(&control, command) {
        Step::Failed(message) => (message, NOT_CONTAINED),
        Step::NoCommand(program, error) => {
            let error = error.raw_os_error().unwrap_or_default();
            (Message::NoCommand { program, error }, NOT_RUN)
        }
    };
    let _ = wire::send(&control, &why, &[]);
    code.into()
}

/// Where it stopped.
enum Step {
    Failed(Message),
    NoCommand(PathBuf, io::Error),
}

/// A step by name, for the one who reads that it failed.
fn step<T>(what: &str, done: io::Result<T>) -> Result<T, Step> {
    done.map_err(|error| Step::Failed(Message::Failed(format!("{what}: {error}"))))
}

fn become_it(control: &OwnedFd, command: &[OsString]) -> Step {
    match prepare(control) {
        Ok(()) => {}
        Err(step) => return step,
    }
    let Some((program, words)) = command.split_first() else {
        return Step::Failed(Message::Failed("no command was given".into()));
    };
    let error = Command::new(program).args(words).exec();
    Step::NoCommand(program.into(), error)
}

fn prepare(control: &OwnedFd) -> Result<(), Step> {
    let (message, mut descriptors) = step("its orders", wire::receive(control))?;
    let (Some(Message::Orders(orders)), Some(stdin)) = (message, descriptors.pop()) else {
        return Err(Step::Failed(Message::Failed("no orders came".into())));
    };
    step(
        "the standard input",
        rustix::stdio::dup2_stdin(&stdin).map_err(Into::into),
    )?;
    drop(stdin);
    step("open descriptors", nothing_leads_out())?;
    namespaces()?;
    let ipv6 = step("local routes", routes::everything_is_local())?;
    let sockets = step("listeners", listen(&orders, ipv6))?;
    step("mounts", mounts::arrange(&orders.hide))?;
    let local = orders.local.len();
    let captured = sockets.len().saturating_sub(3 + local);
    let borrowed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let ready = Message::Ready { local, captured };
    step(
        "handing out sockets",
        wire::send(control, &ready, &borrowed),
    )?;
    drop(sockets);
    match step("waiting", wire::receive(control))? {
        (Some(Message::Go), _) => {}
        _ => return Err(Step::Failed(Message::Failed("the gate is gone".into()))),
    }
    step("giving up capabilities", sealed::give_up_everything())
}

/// A socket that was left open by whoever started us belongs to the network outside.
fn nothing_leads_out() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let name = entry.file_name();
        let number: i32 = name.to_string_lossy().parse().unwrap_or(0);
        let Ok(what) = std::fs::read_link(entry.path()) else {
            continue;
        };
        if number > 2 && what.to_string_lossy().starts_with("socket:") && stays_open(number)? {
            let why = format!("descriptor {number} is a socket that leads out: close it");
            return Err(io::Error::other(why));
        }
    }
    Ok(())
}

/// Whether a descriptor would still be open in the command.
fn stays_open(number: i32) -> io::Result<bool> {
    const CLOSES: u32 = 0o2_000_000;
    let path = format!("/proc/self/fdinfo/{number}");
    let text = crate::config::read(Path::new(&path))?;
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    Ok(flags.is_none_or(|flags| flags & CLOSES == 0))
}

/// New namespaces, in which this user is itself and nobody else.
fn namespaces() -> Result<(), Step> {
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    forbidden("namespaces", unshare())?;
    // Whether root or not: one's own id is mapped to itself, after giving up `setgroups`.
    let write = |path: &str, text: String| std::fs::write(path, text);
    forbidden("setgroups", write("/proc/self/setgroups", "deny".into()))?;
    forbidden(
        "uid map",
        write("/proc/self/uid_map", format!("{user} {user} 1")),
    )?;
    forbidden(
        "gid map",
        write("/proc/self/gid_map", format!("{group} {group} 1")),
    )
}

fn forbidden(what: &str, done: io::Result<()>) -> Result<(), Step> {
    done.map_err(|error| {
        Step::Failed(Message::Forbidden {
            what: what.to_owned(),
            error: error.to_string(),
        })
    })
}

#[expect(
    deprecated,
    reason = "it is only unsafe with FILES, which parts the descriptors of threads"
)]
fn unshare() -> io::Result<()> {
    let flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    Ok(rustix::thread::unshare(flags)?)
}

/// The proxy's, DNS over UDP and TCP, the local ones, and one for each port that is captured.
fn listen(orders: &Orders, ipv6: bool) -> io::Result<Vec<OwnedFd>> {
    let inside = IpAddr::from(Ipv4Addr::LOCALHOST);
    let everywhere = if ipv6 {
        IpAddr::from(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::from(Ipv4Addr::UNSPECIFIED)
    };
    let mut sockets = vec![
        bound(inside, orders.proxy_port, Type::STREAM)?,
        bound(everywhere, 53, Type::DGRAM)?,
        bound(everywhere, 53, Type::STREAM)?,
    ];
    for port in &orders.local {
        sockets.push(bound(inside, *port, Type::STREAM)?);
    }
    let mut ports = orders.ports.clone();
    ports.sort_unstable();
    ports.dedup();
    ports.retain(|port| ![0, 53, orders.proxy_port].contains(port));
    ports.retain(|port| !orders.local.contains(port));
    if ports.len() + sockets.len() > MOST {
        return Err(io::Error::other("too many ports are captured"));
    }
    for port in ports {
        sockets.push(bound(everywhere, port, Type::STREAM)?);
    }
    Ok(sockets.into_iter().map(OwnedFd::from).collect())
}

fn bound(address: IpAddr, port: u16, kind: Type) -> io::Result<Socket> {
    let address = SocketAddr::new(address, port);
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}
