//! Agents that no launcher started: a hook registers its agent's process, and flows of that process
//! get the session of the agent.
//!
//! The session is a label: it grants nothing, and each process of the user can register itself.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::process::table::{self, Table};

/// Agents kept, at most; the oldest is dropped first.
const MAX_AGENTS: usize = 256;
/// The ancestors of a hook that may be its agent: a shell may be between them.
const MAX_ANCESTORS: usize = 3;
/// A text that the command line of a hook contains, and that of an agent does not.
const HOOK: &str = "session hook";

/// Agents with their processes.
#[derive(Debug, Default)]
pub(super) struct Registered {
    agents: Mutex<Vec<Agent>>,
    /// Whether there is any agent: most gates then look up no process.
    any: AtomicBool,
}

#[derive(Debug)]
struct Agent {
    session: Arc<str>,
    pid: u32,
    /// The start of the process, in the kernel's ticks since boot.
    began: u64,
}

impl Agent {
    fn lives(&self) -> bool {
        table::began(self.pid) == Some(self.began)
    }
}

impl Registered {
    /// Registers the agent above the hook with this process id for `session`. Reads `/proc`.
    pub(super) fn register(&self, session: &Arc<str>, hook: u32) {
        let Some(pid) = agent_above(hook) else { return };
        let Some(began) = table::began(pid) else {
            return;
        };
        let mut agents = self.lock();
        agents.retain(|agent| agent.pid != pid && agent.lives());
        if agents.len() >= MAX_AGENTS {
            agents.remove(0);
        }
        let session = session.clone();
        agents.push(Agent {
            session,
            pid,
            began,
        });
        self.any.store(true, Ordering::Release);
    }

    /// Whether any agent is registered.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// The session and the process of the agent that holds the client's end of a connection. Reads
    /// `/proc`.
    pub(super) fn at(&self, client: SocketAddr, local: SocketAddr) -> Option<(Arc<str>, u32)> {
        let inode = table::inode(Path::new("/proc/self/net"), client, local)?;
        let agents = self.lock();
        let mut agents = agents.iter().filter(|agent| agent.lives());
        let agent = agents.find(|agent| table::holds(agent.pid, inode))?;
        Some((agent.session.clone(), agent.pid))
    }

    /// The process of the agent of a session.
    pub(super) fn process_of(&self, session: &str) -> Option<u32> {
        if !self.any() {
            return None;
        }
        let agents = self.lock();
        let agent = agents.iter().find(|agent| *agent.session == *session);
        agent.map(|agent| agent.pid)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Agent>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    use std::process::{Command, Stdio};

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
        assert_eq!(registered.at(client, local), None);
        let mut hook = Command::new("sh")
            .args(["-c", "read -r _; : tidegate session hook"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        registered.register(&"s".into(), hook.id());
        let pid = std::process::id();
        assert_eq!(registered.at(client, local), Some(("s".into(), pid)));
        assert_eq!(registered.process_of("s"), Some(pid));
        registered.register(&"t".into(), hook.id());
        assert_eq!(registered.process_of("s"), None);
        hook.kill().unwrap();
        hook.wait().unwrap();
        let unknown = SocketAddr::from(([127, 0, 0, 1], 1));
        assert_eq!(registered.at(unknown, local), None);
    }
}
