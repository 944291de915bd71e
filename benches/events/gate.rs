//! The program itself, as a child process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::authority::Authority;

/// A running gate; it ends with this value.
pub(crate) struct Gate {
    child: Child,
    pub(crate) proxy: SocketAddr,
    _folder: TempDir,
}

impl Gate {
    pub(crate) fn start(config: &str, origins: &Authority, inspecting: &Authority) -> Self {
        let folder = TempDir::new().expect("a folder");
        let files = [
            ("tidegate.toml", config.to_owned()),
            ("origins.pem", origins.pem()),
            ("inspect.pem", inspecting.pem()),
            ("inspect.key", inspecting.key_pem()),
        ];
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("a file");
            let mode = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(path, mode).expect("a mode");
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["run", "--config", "tidegate.toml"])
            .env_clear()
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        let mut said = BufReader::new(child.stderr.take().expect("a stderr")).lines();
        let (mut proxy, mut all) = (None, String::new());
        while let Some(Ok(line)) = said.next() {
            if let Some(address) = line.strip_prefix("tidegate: proxy on ") {
                proxy = address.trim().parse().ok();
            }
            if line == "tidegate: ready" {
                break;
            }
            all = all + &line + "\n";
        }
        // What it says later is read, so that it can go on saying it.
        std::thread::spawn(move || said.for_each(drop));
        Self {
            child,
            proxy: proxy.expect(&all),
            _folder: folder,
        }
    }

    /// CPU time that it has used (user and system).
    pub(crate) fn cpu(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(path).expect("a process");
        let (_, after_name) = stat.rsplit_once(')').expect("a name");
        let fields = after_name.split_ascii_whitespace();
        // utime and stime, the 14th and 15th of all fields, in ticks of 10 ms.
        let ticks = fields.skip(11).take(2).map(str::parse::<u64>);
        let ticks: u64 = ticks.map(|it| it.expect("ticks")).sum();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
