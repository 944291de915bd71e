//! Whose connection it is: the process at its other end, where it is on this host.
//!
//! A label on every record, never a grant: it can only refuse. A gate that belongs to one command
//! takes no flow of a process that is not below that command, whatever it presents.

mod agent;
#[cfg(target_os = "linux")]
mod input;
mod mask;
pub(super) mod table;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::sync::Semaphore;

use super::grant::{Pids, Process};
use table::Table;

pub use agent::{AgentProcess, AgentReport, HookProcess, Program};

/// Searches at once; others wait their turn.
const SEARCHES: usize = 4;
/// Names of ancestors that are kept.
const ANCESTORS: usize = 16;
/// Characters of a command that are kept.
const COMMAND: usize = 200;
/// Bytes of a JSON document in a command that are kept.
const MAX_DOCUMENT: usize = 64;

/// Whether a listener serves the process of a client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Kin {
    /// The listener serves every process.
    #[default]
    Any,
    /// It is one of the command's processes.
    Own,
    /// It is a process of another session or user.
    Foreign,
    /// Which process it is could not be seen.
    Unknown,
}

/// The processes of one command: below this process, or below what it started.
#[derive(Debug)]
pub struct Family {
    /// Everything below it belongs: it takes up orphans (`PR_SET_CHILD_SUBREAPER`).
    head: u32,
    /// The command itself, once it runs: its network is the one to look in.
    command: AtomicU32,
    /// When the command began, in the kernel's ticks since the start of the machine.
    command_began: AtomicU64,
    searches: Semaphore,
}

impl Family {
    /// The descendants of this process.
    pub fn of_this_process() -> Self {
        Self {
            head: std::process::id(),
            command: AtomicU32::new(0),
            command_began: AtomicU64::new(0),
            searches: Semaphore::new(SEARCHES),
        }
    }

    /// Says which process the command is.
    pub fn command_is(&self, pid: u32) {
        let began = table::began(pid).unwrap_or_default();
        self.command_began.store(began, Ordering::Release);
        self.command.store(pid, Ordering::Release);
    }

    /// Whose connection from `client` to `local` is. Reads `/proc`, on a thread for that.
    pub async fn owner(
        self: &Arc<Self>,
        client: SocketAddr,
        local: SocketAddr,
    ) -> (Kin, Option<Arc<Process>>) {
        let family = self.clone();
        let found = self.search(move || Some(family.find(client, local))).await;
        found.unwrap_or((Kin::Unknown, None))
    }

    /// Whose datagram from `client` is, which waits for an answer. As [`Family::owner`].
    pub async fn asker(self: &Arc<Self>, client: SocketAddr) -> (Kin, Option<Arc<Process>>) {
        let family = self.clone();
        let find = move || Some(family.holder(table::asker(&family.network(), client)));
        self.search(find).await.unwrap_or((Kin::Unknown, None))
    }

    /// TCP ports at which the network of the command listens. Reads `/proc`, on a thread for that.
    pub async fn listening(self: &Arc<Self>) -> Vec<u16> {
        let family = self.clone();
        self.search(move || table::listening(&family.network()))
            .await
    }

    /// On a thread for that; the default where nothing can be found.
    async fn search<T: Default + Send + 'static>(
        &self,
        find: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let Ok(_turn) = self.searches.acquire().await else {
            return T::default();
        };
        let found = tokio::task::spawn_blocking(find).await;
        found.unwrap_or_default()
    }

    /// As [`Family::owner`], on this thread.
    fn find(&self, client: SocketAddr, local: SocketAddr) -> (Kin, Option<Arc<Process>>) {
        self.holder(self.inode(client, local))
    }

    fn holder(&self, inode: Option<u64>) -> (Kin, Option<Arc<Process>>) {
        let Some(inode) = inode else {
            return (Kin::Unknown, None);
        };
        let table = Table::read();
        let below = table.below(self.head);
        if let Some(pid) = below.iter().find(|pid| table::holds(**pid, inode)) {
            return (Kin::Own, Some(Arc::new(self.describe(&table, *pid))));
        }
        let others = table.pids().filter(|pid| !below.contains(pid));
        let stranger = others
            .filter(|pid| *pid != self.head)
            .find(|pid| table::holds(*pid, inode));
        match stranger {
            Some(pid) => (Kin::Foreign, Some(Arc::new(self.describe(&table, pid)))),
            None => (Kin::Unknown, None),
        }
    }

    /// The socket's number, as the command's network lists it.
    fn inode(&self, client: SocketAddr, local: SocketAddr) -> Option<u64> {
        table::inode(&self.network(), client, local)
            .or_else(|| table::inode(&PathBuf::from("/proc/self/net"), client, local))
    }

    /// Where the command's network is listed.
    fn network(&self) -> PathBuf {
        let command = self.command.load(Ordering::Acquire);
        let whose = if command == 0 { self.head } else { command };
        PathBuf::from(format!("/proc/{whose}/net"))
    }

    /// A process, with its parents up to the command: what starts the command is not named.
    fn describe(&self, table: &Table, pid: u32) -> Process {
        let command = self.command.load(Ordering::Acquire);
        let top = table.parent(command).unwrap_or(self.head);
        describe(table, pid, (self.head, top))
    }
}

/// A process with its ancestors up to `head`; those up to `top` are named. Neither is one of them.
pub(super) fn describe(table: &Table, pid: u32, (head, top): (u32, u32)) -> Process {
    let words: Vec<String> = table::command(pid).into_iter().map(shortened).collect();
    let command = mask::masked(&words);
    let above = table.above(pid, head);
    let pids = |outer| Pids {
        outer,
        inner: table::inner(outer).unwrap_or(outer),
    };
    let lineage = [pid].into_iter().chain(above.iter().map(|(pid, _)| *pid));
    Process {
        lineage: lineage.take(ANCESTORS).map(pids).collect(),
        path: table::executable(pid).map(Arc::from),
        pid,
        command: command.chars().take(COMMAND).collect::<String>().into(),
        ancestry: above
            .into_iter()
            .take_while(|(pid, _)| *pid != top)
            .take(ANCESTORS)
            .map(|(_, name)| name)
            .collect(),
    }
}

/// The users of the processes that listen at a local address; none where that cannot be seen. Reads
/// `/proc`.
pub fn listener_users(local: SocketAddr) -> Vec<u32> {
    table::listeners(Path::new("/proc/self/net"), local)
}

/// A text that a shell runs, with every possible secret masked, cut.
pub(super) fn masked_script(text: &str) -> Box<str> {
    const SHELL: [&str; 2] = ["sh", "-c"];
    let words: Vec<String> = SHELL.into_iter().chain([text]).map(str::to_owned).collect();
    let masked = mask::masked(&words);
    let script = masked.strip_prefix("sh -c ").unwrap_or(&masked);
    script.chars().take(COMMAND).collect::<String>().into()
}

/// A word of a command, or a sign for a long JSON document: settings would hide the other words.
fn shortened(word: String) -> String {
    if word.starts_with('{') && word.ends_with('}') && word.len() > MAX_DOCUMENT {
        return "{…}".to_owned();
    }
    word
}

/// The user who holds the client's end of a connection on this host; `None` where that cannot be
/// seen. Reads `/proc`.
pub fn client_user(client: SocketAddr, local: SocketAddr) -> Option<u32> {
    table::user(Path::new("/proc/self/net"), client, local)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::process::{Command, Stdio};

    use super::*;

    fn ends() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn a_child_is_own_and_names_its_command_and_parents() {
        let (listener, address) = ends();
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{}; echo open; read -r -u 3 _; true --password hush",
            address.port()
        );
        let mut child = Command::new("bash")
            .args(["-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stream, client) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let (kin, process) = Family::of_this_process().find(client, address);
        let process = process.unwrap();
        assert_eq!((kin, process.pid), (Kin::Own, child.id()));
        assert!(process.path.as_deref().unwrap().ends_with("bash"));
        assert!(process.command.starts_with("bash -c exec 3"), "{process:?}");
        assert!(!process.command.contains("hush"), "{process:?}");
        assert_eq!(process.ancestry, []);
        let own = Pids {
            outer: child.id(),
            inner: child.id(),
        };
        assert_eq!(process.lineage, [own]);
        // It is not below the command of another gate.
        let elsewhere = Family {
            head: child.id(),
            ..Family::of_this_process()
        };
        assert_eq!(elsewhere.find(client, address).0, Kin::Unknown);
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        let elsewhere = Family {
            head: other.id(),
            ..Family::of_this_process()
        };
        assert_eq!(elsewhere.find(client, address).0, Kin::Foreign);
        drop(stream);
        child.wait().unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_client_that_is_gone_is_unknown() {
        let (_listener, address) = ends();
        let unknown = SocketAddr::from(([127, 0, 0, 1], 1));
        assert_eq!(
            Family::of_this_process().find(unknown, address),
            (Kin::Unknown, None)
        );
    }
}
