//! Agents that no launcher of this gate started: a hook registers its agent's process, and flows of
//! that process get the session of the agent. So do flows of the processes below it, where the agent
//! gives its commands no credential of their own.
//!
//! The session is a label: it grants nothing, and each process of the user can register itself.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::grant::Process;
use super::process::describe;
use super::process::table::{self, Table};

/// Agents kept, at most; the oldest is dropped first.
const MAX_AGENTS: usize = 256;
/// Earlier sessions of one agent, at most; the oldest is dropped first.
const MAX_EARLIER: usize = 64;
/// The ancestors of a hook that may be its agent: a shell may be between them.
const MAX_ANCESTORS: usize = 3;
/// A text that the command line of a hook contains, and that of an agent does not.
const HOOK: &str = "session hook";
/// The sockets of this process's network.
const OWN_NETWORK: &str = "/proc/self/net";

/// Agents with their processes.
#[derive(Debug, Default)]
pub(super) struct Registered {
    agents: Mutex<Vec<Agent>>,
    /// Whether there is any agent: most gates then look up no process.
    any: AtomicBool,
}

#[derive(Debug)]
struct Agent {
    /// The present session of the agent.
    session: Arc<str>,
    /// The earlier sessions of the agent, the newest last.
    earlier: VecDeque<Arc<str>>,
    pid: u32,
    /// The start of the process, in the kernel's ticks since boot.
    began: u64,
    /// Whether flows of the processes below it are its own.
    with_commands: bool,
}

impl Agent {
    fn lives(&self) -> bool {
        table::began(self.pid) == Some(self.began)
    }

    /// Sets the present session; returns the session before it, if it was another.
    fn goes_on_as(&mut self, session: &Arc<str>) -> Option<Arc<str>> {
        if self.session == *session {
            return None;
        }
        self.earlier.retain(|it| it != session);
        if self.earlier.len() >= MAX_EARLIER {
            self.earlier.pop_front();
        }
        let before = std::mem::replace(&mut self.session, session.clone());
        self.earlier.push_back(before.clone());
        Some(before)
    }

    fn had(&self, session: &str) -> bool {
        self.earlier.iter().any(|it| **it == *session)
    }
}

impl Registered {
    /// Registers the agent with this process id for `session`; returns the session that the same
    /// process had before. Reads `/proc`.
    pub(super) fn register(
        &self,
        session: &Arc<str>,
        pid: u32,
        with_commands: bool,
    ) -> Option<Arc<str>> {
        let began = table::began(pid)?;
        let mut agents = self.lock();
        agents.retain(Agent::lives);
        // An agent keeps its place: of several of one session, the first one is its agent.
        let before = if let Some(known) = agents.iter_mut().find(|agent| agent.pid == pid) {
            known.with_commands = with_commands;
            known.goes_on_as(session)
        } else {
            if agents.len() >= MAX_AGENTS {
                agents.remove(0);
            }
            agents.push(Agent {
                session: session.clone(),
                earlier: VecDeque::new(),
                pid,
                began,
                with_commands,
            });
            None
        };
        drop(agents);
        self.any.store(true, Ordering::Release);
        before
    }

    /// The present session of the agent that started the hook with this process id. Reads `/proc`.
    pub(super) fn session_above(&self, hook: u32) -> Option<Arc<str>> {
        if !self.any() {
            return None;
        }
        let pid = agent_above(hook)?;
        let agents = self.lock();
        let agent = agents.iter().find(|it| it.pid == pid && it.lives())?;
        Some(agent.session.clone())
    }

    /// The hook at the client's end of a connection. Reads `/proc`.
    pub(super) fn hook_at(client: SocketAddr, local: SocketAddr) -> Option<u32> {
        let inode = table::inode(Path::new(OWN_NETWORK), client, local)?;
        let processes = Table::read();
        processes.pids().find(|pid| table::holds(*pid, inode))
    }

    /// Whether any agent is registered.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// The session of an agent, and the process that holds the client's end of a connection: the agent,
    /// or a process below it. Of several agents above a process, the nearest counts. Reads `/proc`.
    pub(super) fn at(&self, client: SocketAddr, local: SocketAddr) -> Option<(Arc<str>, Process)> {
        let inode = table::inode(Path::new(OWN_NETWORK), client, local)?;
        let agents = self.living();
        let processes = Table::read();
        let itself = agents.keys().copied().find(|pid| table::holds(*pid, inode));
        let below = || {
            let heads = agents.iter().filter(|(_, agent)| agent.1);
            let mut below = heads.flat_map(|(head, _)| processes.below(*head));
            below.find(|pid| table::holds(*pid, inode))
        };
        let pid = itself.or_else(below)?;
        let above = processes.above(pid, 0).into_iter().map(|(pid, _)| pid);
        let speaks_for_others = |pid: &u32| !takes_in_orphans(&processes, *pid);
        let mut line = [pid].into_iter().chain(above.filter(speaks_for_others));
        let (agent, (session, with_commands)) =
            line.find_map(|pid| Some((pid, agents.get(&pid)?)))?;
        if agent != pid && !with_commands {
            return None;
        }
        let top = processes.parent(agent).unwrap_or_default();
        let process = describe(&processes, pid, (top, top));
        Some((session.clone(), process))
    }

    /// The sessions of the agents that run, by their processes, and whether their commands count.
    fn living(&self) -> BTreeMap<u32, (Arc<str>, bool)> {
        let agents = self.lock();
        let living = agents.iter().filter(|agent| agent.lives());
        living
            .map(|agent| (agent.pid, (agent.session.clone(), agent.with_commands)))
            .collect()
    }

    /// The process of the agent of a session: of its present one, else of an earlier one.
    pub(super) fn process_of(&self, session: &str) -> Option<u32> {
        if !self.any() {
            return None;
        }
        let agents = self.lock();
        let now = agents.iter().find(|agent| *agent.session == *session);
        let agent = now.or_else(|| agents.iter().find(|agent| agent.had(session)));
        agent.map(|agent| agent.pid)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Agent>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a process is the first one, or one that the first one started: the kernel may make it the
/// parent of a process whose own parent ended (`PR_SET_CHILD_SUBREAPER`, the manager of a user's
/// services). A process could register it as an agent, and so label flows of all others.
fn takes_in_orphans(processes: &Table, pid: u32) -> bool {
    pid <= 1 || processes.parent(pid).is_none_or(|parent| parent <= 1)
}

/// The nearest ancestor of a hook that is not the hook's own shell.
pub(super) fn agent_above(hook: u32) -> Option<u32> {
    let processes = Table::read();
    let above = processes.above(hook, 0);
    let mut above = above.into_iter().take(MAX_ANCESTORS).map(|(pid, _)| pid);
    above.find(|pid| !is_of_hook(&table::command(*pid)))
}

/// Whether a command line is that of a hook, or of the shell that starts it. The command line of an
/// agent may contain its hooks as settings.
fn is_of_hook(words: &[String]) -> bool {
    let is_setting = |word: &&String| word.starts_with('{') || word.starts_with("hooks={");
    let words: Vec<&str> = words
        .iter()
        .filter(|word| !is_setting(word))
        .map(String::as_str)
        .collect();
    words.join(" ").contains(HOOK)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[test]
    fn an_agent_with_hooks_on_its_command_line_is_no_hook() {
        let of = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            is_of_hook(&words)
        };
        assert!(of(&[
            "/bin/tidegate",
            "session",
            "hook",
            "--agent",
            "codex"
        ]));
        assert!(of(&[
            "bash",
            "-lc",
            "/bin/tidegate session hook --agent codex"
        ]));
        assert!(!of(&[
            "codex",
            "-c",
            "hooks={a=\"tidegate session hook\"}",
            "exec"
        ]));
        assert!(!of(&[
            "claude",
            "--settings",
            "{\"a\":\"tidegate session hook\"}"
        ]));
    }

    #[test]
    fn the_connections_of_a_registered_agent_are_its_session_s() {
        let registered = Registered::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let own = TcpStream::connect(local).unwrap();
        let client = own.local_addr().unwrap();
        assert!(registered.at(client, local).is_none());
        let mut hook = Command::new("sh")
            .args(["-c", "read -r _; : tidegate session hook"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        registered.register(&"s".into(), agent_above(hook.id()).unwrap(), true);
        let pid = std::process::id();
        let at = |client| {
            let (session, process) = registered.at(client, local)?;
            Some((session.to_string(), process.pid))
        };
        assert_eq!(at(client), Some(("s".to_owned(), pid)));
        assert_eq!(registered.process_of("s"), Some(pid));
        let before = registered.register(&"t".into(), agent_above(hook.id()).unwrap(), true);
        assert_eq!(before.as_deref(), Some("s"));
        assert_eq!(registered.session_above(hook.id()).as_deref(), Some("t"));
        assert_eq!(registered.process_of("s"), registered.process_of("t"));
        assert_eq!(registered.process_of("u"), None);
        hook.kill().unwrap();
        hook.wait().unwrap();
        let unknown = SocketAddr::from(([127, 0, 0, 1], 1));
        assert_eq!(at(unknown), None);
    }

    #[test]
    fn the_first_process_is_the_agent_of_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let own = TcpStream::connect(local).unwrap();
        let registered = Registered::default();
        registered.lock().push(Agent {
            session: "s".into(),
            earlier: VecDeque::new(),
            pid: 1,
            began: table::began(1).unwrap(),
            with_commands: true,
        });
        let client = own.local_addr().unwrap();
        assert!(registered.at(client, local).is_none());
    }

    #[test]
    fn of_two_agents_of_a_session_the_first_one_stays_its_agent() {
        let registered = Registered::default();
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        let agent = |pid| Agent {
            session: "s".into(),
            earlier: VecDeque::new(),
            pid,
            began: table::began(pid).unwrap(),
            with_commands: true,
        };
        let own = std::process::id();
        registered.lock().extend([agent(own), agent(other.id())]);
        registered.any.store(true, Ordering::Release);
        let mut hook = Command::new("sleep").arg("60").spawn().unwrap();
        registered.register(&"s".into(), agent_above(hook.id()).unwrap(), true);
        assert_eq!(registered.process_of("s"), Some(own));
        for child in [&mut other, &mut hook] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// A process with a connection to `local`, which it keeps until its input ends.
    fn client_of(local: SocketAddr, script: &str) -> Child {
        let script = script.replace("PORT", &local.port().to_string());
        let mut command = Command::new("bash");
        command.args(["-c", &script]).stdin(Stdio::piped());
        command.spawn().unwrap()
    }

    #[test]
    fn a_process_below_two_agents_is_of_the_nearer_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let script = "(exec 3<>/dev/tcp/127.0.0.1/PORT; read -r _; :); :";
        let mut outer = client_of(local, script);
        let (_stream, client) = listener.accept().unwrap();
        let registered = Registered::default();
        let mut agents = registered.lock();
        for (session, pid) in [("far", std::process::id()), ("near", outer.id())] {
            let began = table::began(pid).unwrap();
            let session = session.into();
            agents.push(Agent {
                session,
                earlier: VecDeque::new(),
                pid,
                began,
                with_commands: true,
            });
        }
        drop(agents);
        let (session, process) = registered.at(client, local).unwrap();
        assert_eq!(&*session, "near");
        assert_ne!(process.pid, outer.id());
        // Its line of ancestors ends with the agent.
        assert_eq!(process.lineage.last().map(|it| it.outer), Some(outer.id()));
        drop(outer.stdin.take());
        outer.wait().unwrap();
    }
}
