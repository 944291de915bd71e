//! The walkthrough of a policy change, with a real clone and install through a gate that observes.

mod company;
mod shown;

use std::path::Path;
use std::process::{Command, Stdio};

use jiff::civil::Date;
use rustix::process::{Pid, Signal, kill_process};

use crate::kit::until;
use crate::walkthrough::{Desk, differences};

use company::Company;
use shown::{Ids, on_one_day, today};

/// The addresses of the reader's gate, as the manual shows them.
const GATE: &str = "127.0.0.1:3128";
const ADMIN: &str = "127.0.0.1:3130";

/// A folder on a machine of Acme's, which is also the home. A gate that a step starts has its number
/// in `gate.pid` and writes what it says to `gate.log`.
struct Machine {
    folder: tempfile::TempDir,
    company: Company,
    ids: Ids,
}

impl Machine {
    fn new(today: Date) -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            company: Company::new(),
            ids: Ids::new(today),
        }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// The address of the gate that a step started.
    fn gate(&self) -> Option<String> {
        let log = self.read("gate.log");
        let mut lines = log.lines();
        lines.find_map(|line| line.strip_prefix("tidegate: proxy on ").map(str::to_owned))
    }

    /// Waits until the gate did what a command makes it do: a reader reads on meanwhile.
    fn wait_for_gate(&self, command: &str) {
        if command.contains("tidegate run") {
            let log = || self.read("gate.log");
            until("a gate that is ready", || log().contains("tidegate: ready"));
        }
        if command.contains("kill -HUP") {
            let log = || self.read("gate/decisions.jsonl");
            let loaded = || log().matches("\"policy_loaded\"").count();
            until("a policy that is loaded anew", || loaded() > 1);
        }
    }
}

impl Desk for Machine {
    fn write(&mut self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let free = text.replace(GATE, "127.0.0.1:0");
        let free = free.replace(ADMIN, "127.0.0.1:0");
        std::fs::write(path, self.company.real(&free)).expect("a file");
    }

    fn run(&mut self, _: &str, line: &str) -> String {
        let program = Path::new(env!("CARGO_BIN_EXE_tidegate"));
        let program = program.parent().expect("a folder").display();
        let path = format!("{program}:/usr/local/bin:/usr/bin:/bin");
        let line = self.company.real(&self.ids.real(line));
        let line = line.replace(GATE, self.gate().as_deref().unwrap_or(GATE));
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {line}")])
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.folder.path())
            .env("LANG", "C.UTF-8")
            .env("TERM", "dumb")
            .envs(self.company.variables())
            .stdin(Stdio::null())
            .output()
            .expect("a shell");
        self.wait_for_gate(&line);
        let text = String::from_utf8_lossy(&output.stdout);
        let home = self.folder.path().display().to_string();
        let text = self.company.shown(&text.replace(&home, "/home/ana"));
        let text = match self.gate() {
            Some(gate) => text.replace(&gate, GATE),
            None => text,
        };
        self.ids.shown(&text)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let number = self.read("gate.pid").trim().parse().ok();
        if let Some(gate) = number.and_then(Pid::from_raw) {
            let _ = kill_process(gate, Signal::TERM);
        }
    }
}

#[test]
fn a_policy_change_goes_from_pull_request_to_production_as_printed() {
    let chapter = "policy_walkthrough.md";
    let wrong = on_one_day(today, |day| differences(chapter, &mut Machine::new(day)));
    assert!(wrong.is_empty(), "{chapter} prints otherwise:\n\n{wrong}");
}
