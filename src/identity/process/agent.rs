//! Decides whether a report comes from the agent's own process, not from a process that the agent
//! started.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::registered::agent_above;
use super::Family;
use super::table::{self, Table};

/// The bytes of a script's first line that the kernel reads.
const SCRIPT_LINE: u64 = 256;
/// The number of attempts, and the pause between them, for a socket held by two processes: between
/// `fork` and `exec` a child holds its parent's sockets.
const ATTEMPTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(10);

/// The process of an agent that this process started.
#[derive(Clone, Debug)]
pub struct AgentProcess {
    family: Arc<Family>,
    /// The executable at the start.
    program: Option<Program>,
}

/// A report that the agent's own process writes to a hook.
#[derive(Debug)]
pub struct AgentReport {
    /// The stream with the report.
    pub input: UnixStream,
    /// The start of the hook, in the kernel's ticks since boot.
    pub began: u64,
}

/// A process that reports to the gate, without evidence that the agent started it.
#[derive(Clone, Copy, Debug)]
pub struct HookProcess {
    /// The nearest ancestor that is no shell of the hook: the agent, if the report is true.
    pub above: u32,
    /// The start of the process, in the kernel's ticks since boot.
    pub began: u64,
}

/// An executable, by its device and inode: another file at the same path is another executable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Program {
    device: u64,
    inode: u64,
}

impl Program {
    /// The executable that runs for the command `name`: for a script its interpreter, and for
    /// `#!/usr/bin/env NAME` the program of that name in the PATH.
    pub fn of_command(name: &OsStr) -> Option<Self> {
        let file = find(name)?;
        let Some(line) = script_line(&file) else {
            return Self::at(&file);
        };
        let mut words = line.split_ascii_whitespace();
        let interpreter = Path::new(words.next()?);
        let is_env = interpreter.file_name() == Some(OsStr::new("env"));
        match words.find(|word| *word != "-S") {
            Some(named) if is_env => Self::at(&find(OsStr::new(named))?),
            _ => Self::at(interpreter),
        }
    }

    fn at(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
        })
    }

    /// The present executable of a process.
    fn of_process(pid: u32) -> Option<Self> {
        Self::at(Path::new(&format!("/proc/{pid}/exe")))
    }
}

/// A program by its path, or by its name in the PATH.
fn find(name: &OsStr) -> Option<PathBuf> {
    let path = Path::new(name);
    if path.components().count() > 1 || path.is_absolute() {
        return Some(path.to_owned());
    }
    let folders = std::env::var_os("PATH")?;
    let mut found = std::env::split_paths(&folders).map(|folder| folder.join(name));
    found.find(|file| file.is_file())
}

/// The text after the `#!` of a script.
fn script_line(file: &Path) -> Option<String> {
    let mut begin = Vec::new();
    let file = File::open(file).ok()?;
    file.take(SCRIPT_LINE).read_to_end(&mut begin).ok()?;
    let text = String::from_utf8_lossy(begin.strip_prefix(b"#!")?).into_owned();
    text.lines().next().map(str::to_owned)
}

impl AgentProcess {
    /// The agent of a family, started with `program`.
    pub fn new(family: Arc<Family>, program: Option<Program>) -> Self {
        Self { family, program }
    }

    /// The process id; 0 before the start.
    pub fn pid(&self) -> u32 {
        self.family.command.load(Ordering::Acquire)
    }

    /// Whether the connection from `client` to `local` is the agent's: its process, which still
    /// runs its first executable, holds the socket, and no other process does.
    pub async fn is_at(&self, client: SocketAddr, local: SocketAddr) -> bool {
        let agent = self.clone();
        let find = move || agent.holds_alone(client, local);
        self.family.search(find).await
    }

    /// The report on the standard input of the hook at the other end of the connection; `None` if
    /// another process than the agent may have written it.
    pub async fn report_at(&self, client: SocketAddr, local: SocketAddr) -> Option<AgentReport> {
        let agent = self.clone();
        self.family
            .search(move || agent.find_report(client, local))
            .await
    }

    /// The hook at the other end of the connection, if it is below the agent's process.
    pub async fn hook_at(&self, client: SocketAddr, local: SocketAddr) -> Option<HookProcess> {
        let agent = self.clone();
        let find = move || agent.find_hook(client, local);
        self.family.search(find).await
    }

    fn find_hook(&self, client: SocketAddr, local: SocketAddr) -> Option<HookProcess> {
        let inode = self.family.inode(client, local)?;
        let table = Table::read();
        let below = table.below(self.family.head);
        let hook = below.into_iter().find(|pid| table::holds(*pid, inode))?;
        let above = agent_above(hook)?;
        let command = self.pid();
        let line = table.above(above, self.family.head);
        let is_below = line.iter().any(|(pid, _)| *pid == command);
        let began = table::began(hook)?;
        (above == command || is_below).then_some(HookProcess { above, began })
    }

    #[cfg(target_os = "linux")]
    fn find_report(&self, client: SocketAddr, local: SocketAddr) -> Option<AgentReport> {
        let agent = Some(self.pid()).filter(|pid| *pid != 0 && self.is_itself(*pid))?;
        let inode = self.family.inode(client, local)?;
        let below = Table::read().below(self.family.head);
        let hook = below.into_iter().find(|pid| table::holds(*pid, inode))?;
        let input = super::input::of(hook, agent)?;
        let began = table::began(hook)?;
        let report = AgentReport { input, began };
        self.is_itself(agent).then_some(report)
    }

    #[cfg(not(target_os = "linux"))]
    fn find_report(&self, _client: SocketAddr, _local: SocketAddr) -> Option<AgentReport> {
        None
    }

    fn holds_alone(&self, client: SocketAddr, local: SocketAddr) -> bool {
        let pid = self.pid();
        if pid == 0 || !self.is_itself(pid) {
            return false;
        }
        let Some(inode) = self.family.inode(client, local) else {
            return false;
        };
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(PAUSE);
            }
            if !table::holds(pid, inode) {
                return false;
            }
            let table = Table::read();
            let mut others = table.pids().filter(|other| *other != pid);
            if !others.any(|other| table::holds(other, inode)) {
                return self.is_itself(pid);
            }
        }
        false
    }

    /// Whether the process is the one that was started, and still runs its first executable.
    fn is_itself(&self, pid: u32) -> bool {
        let began = self.family.command_began.load(Ordering::Acquire);
        began != 0
            && table::began(pid) == Some(began)
            && self.program.is_some()
            && Program::of_process(pid) == self.program
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::process::{Child, Command};

    use super::*;

    /// A command with a connection to the gate on which it has reported that it is ready; closed
    /// with the connection.
    struct Connected {
        child: Child,
        agent: AgentProcess,
        stream: TcpStream,
    }

    impl Connected {
        fn is_the_agent_s(&self) -> bool {
            let (client, local) = (self.stream.peer_addr(), self.stream.local_addr());
            self.agent.holds_alone(client.unwrap(), local.unwrap())
        }

        fn end(mut self) {
            drop(self.stream);
            self.child.wait().unwrap();
        }
    }

    fn connected(script: &str) -> Connected {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let script = script.replace("PORT", &local.port().to_string());
        let child = Command::new("bash").args(["-c", &script]).spawn().unwrap();
        let family = Arc::new(Family::of_this_process());
        family.command_is(child.id());
        let agent = AgentProcess::new(family, Program::of_command(OsStr::new("bash")));
        let (mut stream, _) = listener.accept().unwrap();
        let mut ready = [0; 6];
        stream.read_exact(&mut ready).unwrap();
        Connected {
            child,
            agent,
            stream,
        }
    }

    #[test]
    fn only_the_process_itself_speaks_for_the_agent() {
        let own = connected("exec 3<>/dev/tcp/127.0.0.1/PORT; echo ready >&3; read -t 60 <&3");
        assert!(own.is_the_agent_s());
        own.end();
    }

    #[test]
    fn a_child_of_the_agent_does_not_speak_for_it() {
        let child =
            connected("(exec 3<>/dev/tcp/127.0.0.1/PORT; echo ready >&3; read -t 60 <&3); :");
        assert!(!child.is_the_agent_s());
        child.end();
    }

    #[test]
    fn a_socket_that_a_child_holds_as_well_does_not_speak_for_it() {
        let both =
            connected("exec 3<>/dev/tcp/127.0.0.1/PORT; (echo ready >&3; read -t 60 <&3); :");
        assert!(!both.is_the_agent_s());
        both.end();
    }

    #[test]
    fn a_process_that_became_another_program_does_not_speak_for_it() {
        let other = connected(
            "exec 3<>/dev/tcp/127.0.0.1/PORT; \
             exec python3 -c 'import os; os.write(3, b\"ready\\n\"); os.read(3, 1)'",
        );
        assert!(!other.is_the_agent_s());
        other.end();
    }

    #[test]
    fn a_script_runs_as_its_interpreter() {
        let folder = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            Program::of_command(path.as_os_str())
        };
        let sh = Program::at(Path::new("/bin/sh"));
        assert!(sh.is_some());
        assert_eq!(script("one", "#!/bin/sh\n"), sh);
        assert_eq!(script("two", "#! /usr/bin/env sh\n"), sh);
        assert_eq!(script("three", "#!/usr/bin/env -S sh -e\n"), sh);
        assert_eq!(script("four", "#!/nowhere\n"), None);
    }
}
