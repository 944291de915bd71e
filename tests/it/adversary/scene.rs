//! A user's home with a working copy and the folder of a gate, and scripts that run in it.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::contained::give;
use crate::kit::{
    Origin, Outcome, Pki, Program, TIERS, Visit, allow_more, copy_program, names, need,
};

use super::rows::Rows;

/// What may be reached, and what may not.
pub(super) const HOST: &str = "files.example.com";
pub(super) const REFUSED: &str = "elsewhere.example.net";
/// An ordinary user.
const NOBODY: u32 = 65_534;
/// The programs of the system, which any user can run.
const SYSTEM: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
/// The secret files that the configuration names, below the folder of the gate.
pub(super) const KEY_FILES: [&str; 9] = [
    "keys/inspect.key",
    "keys/credentials.key",
    "keys/session.key",
    "keys/ci.secret",
    "keys/parent.credential",
    "keys/parent.key",
    "keys/agent.key",
    "keys/agent.pass",
    "keys/proxy.key",
];
const TRIES: &str = include_str!("tries.py");

/// Who runs the command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum User {
    Me,
    Nobody,
}

impl User {
    /// The user who runs the tests and, where that is root, an ordinary user as well.
    pub(super) fn all() -> Vec<Self> {
        if is_root() {
            vec![Self::Me, Self::Nobody]
        } else {
            eprintln!("NOT TESTED HERE: the jail of root: run as root");
            vec![Self::Me]
        }
    }

    pub(super) fn id(self) -> u32 {
        match self {
            Self::Me => rustix::process::geteuid().as_raw(),
            Self::Nobody => NOBODY,
        }
    }

    /// Whether the system treats it as root.
    pub(super) fn is_root(self) -> bool {
        self == Self::Me && is_root()
    }
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A home of one user.
pub(super) struct Scene {
    pub(super) user: User,
    pub(super) origin: Origin,
    root: TempDir,
}

impl Scene {
    /// A home in which the configuration of a gate lies in `gate`, and the command starts in `web`.
    pub(super) fn new(user: User) -> Self {
        let origin =
            Origin::http(|visit: &mut Visit, _| visit.answer("200 OK", "text/plain", b"hello"));
        let root = TempDir::new().expect("a folder");
        let scene = Self { user, origin, root };
        for name in ["home/web", "home/gate/rules.d", "home/gate/keys", "bin"] {
            std::fs::create_dir_all(scene.path(name)).expect("a folder");
        }
        std::fs::create_dir_all(scene.gate("records")).expect("a folder");
        let program = scene.path("bin/tidegate");
        copy_program(Path::new(env!("CARGO_BIN_EXE_tidegate")), &program);
        symlink("gate", scene.path("home/current")).expect("a link");
        scene.keys();
        scene.configuration();
        scene.hand_over();
        scene
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(super) fn gate(&self, name: &str) -> PathBuf {
        self.path("home/gate").join(name)
    }

    pub(super) fn web(&self, name: &str) -> PathBuf {
        self.path("home/web").join(name)
    }

    /// Writes a file below the root, and its folder.
    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        let folder = path.parent().expect("a folder");
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    fn key(&self, name: &str, text: &str) {
        let path = self.gate(name);
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).expect("a mode");
    }

    fn keys(&self) {
        let pki = Pki::for_leaves();
        let (agent, agent_key) = pki.issue(|_| {});
        let (parent, parent_key) = pki.issue(|_| {});
        let (proxy, proxy_key) = pki.issue(|_| {});
        self.write("home/gate/keys/inspect.pem", &pki.pem());
        self.write("home/gate/keys/agent.pem", &agent);
        self.write("home/gate/keys/parent.pem", &parent);
        self.write("home/gate/keys/proxy.pem", &proxy);
        self.key("keys/inspect.key", &pki.key_pem());
        self.key("keys/agent.key", &agent_key);
        self.key("keys/agent.pass", "not encrypted\n");
        self.key("keys/parent.key", &parent_key);
        self.key("keys/proxy.key", &proxy_key);
        self.key("keys/parent.credential", "user:of the parent\n");
        self.key(
            "keys/credentials.key",
            "a key for tests, of thirty-two letters",
        );
        let hash = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
        self.key("keys/ci.secret", hash);
        Program::at(&self.path("bin/tidegate"), self.root.path())
            .args(["session", "keygen"])
            .args([self.gate("keys/session.key")])
            .run()
            .succeeded();
    }

    fn configuration(&self) {
        let port = self.origin.port();
        let text = "include = [\"tiers.toml\", \"rules.toml\", \"parents.toml\", \"rules.d/*.toml\"]\n\
             [listen]\nproxy = [\"127.0.0.1:0\"]\nadmin = \"none\"\ncontrol = \"unix:control.sock\"\n\
             [record]\nfile = \"records/decisions.jsonl\"\n\
             [inspect]\nca-cert = \"keys/inspect.pem\"\nca-key = \"keys/inspect.key\"\n\
             credential-key = \"keys/credentials.key\"\n\
             [identity.session]\nkey = \"keys/session.key\"\n\
             [[identity.user]]\nname = \"ci\"\nsecret-file = \"keys/ci.secret\"\n\
             [upstream.internal]\nclient-cert = \"keys/agent.pem\"\n\
             client-key = \"keys/agent.key\"\nroots = [\"keys/inspect.pem\"]\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\n\
             tls = { cert = \"keys/proxy.pem\", key = \"keys/proxy.key\" }\n";
        self.write("home/gate/tidegate.toml", text);
        self.write("home/gate/tiers.toml", TIERS);
        let rule = allow_more("files", HOST, port, "grant.raw = true");
        self.write("home/gate/rules.toml", &rule);
        self.write("home/gate/rules.d/a.toml", "# no rules yet\n");
        let parents = format!(
            "{}[[dial.parent]]\nurl = \"https://parent.example.com:3129\"\n\
             hosts = [\"never.example.com\"]\nroots = [\"keys/inspect.pem\"]\n\
             client-cert = \"keys/parent.pem\"\nclient-key = \"keys/parent.key\"\n\
             credential-file = \"keys/parent.credential\"\n",
            names(&[HOST, REFUSED])
        );
        self.write("home/gate/parents.toml", &parents);
    }

    /// Everything is the user's.
    pub(super) fn hand_over(&self) {
        if self.user == User::Nobody {
            give(self.root.path());
        }
    }

    /// Whether this user can make a jail here; says so where not.
    pub(super) fn can(&self) -> bool {
        let outcome = self.program(&["unshare", "-Urnm", "true"]).run();
        if !outcome.success {
            let why = outcome.stderr;
            eprintln!("NOT TESTED HERE: {:?} makes no jail: {why}", self.user);
        }
        outcome.success
    }

    /// A command line that this user runs in the working copy, in a session of its own: what is sent
    /// to its process group does not reach the test.
    pub(super) fn program(&self, words: &[&str]) -> Program {
        let setsid = Program::at(&need("setsid"), &self.path("home"))
            .env("PATH", SYSTEM)
            .env("XDG_RUNTIME_DIR", self.path("home/run"))
            .within(&self.web(""))
            .args(["--wait"]);
        let id = NOBODY.to_string();
        let become_user = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"];
        let program = match self.user {
            User::Me => setsid,
            User::Nobody => setsid.args(become_user),
        };
        program.args(words)
    }

    /// The words of `tidegate exec`, behind a shell that leaves the number of the gate.
    pub(super) fn exec(&self, options: &[&str], command: &[&str]) -> Vec<String> {
        let program = self.path("bin/tidegate").display().to_string();
        let config = self
            .path("home/current/tidegate.toml")
            .display()
            .to_string();
        let shell = "echo $$ >gate.pid; exec \"$@\"";
        let mut words = vec![
            "sh", "-c", shell, "sh", &program, "exec", "--config", &config,
        ];
        words.extend(options);
        words.push("--");
        words.extend(command);
        words.into_iter().map(str::to_owned).collect()
    }

    /// Runs a command in a jail.
    pub(super) fn jail(&self, command: &[&str]) -> Outcome {
        let words = self.exec(&["--jail"], command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.program(&words).run()
    }

    /// What every script is told; `more` over it.
    pub(super) fn aims(&self, inside: bool, more: &Value) -> Value {
        let mut aims = json!({
            "inside": inside,
            "pid": "file",
            "home": self.path("home"),
            "gate": self.gate(""),
            "records": self.gate("records"),
            "program": self.path("bin/tidegate"),
        });
        // Without the slash at the end.
        aims["gate"] = json!(self.path("home/gate"));
        let more = more.as_object().expect("an object");
        for (name, value) in more {
            aims[name] = value.clone();
        }
        aims
    }

    /// Writes a script, with its targets in both places.
    pub(super) fn script(&self, text: &str, control: &Value, jailed: &Value) {
        self.write("home/web/try.py", &format!("{TRIES}\n\n{text}"));
        for (name, inside, more) in [("control", false, control), ("jailed", true, jailed)] {
            let aims = self.aims(inside, more);
            self.write(&format!("home/web/{name}.json"), &aims.to_string());
        }
        self.hand_over();
    }

    /// Runs the script outside, behind these words.
    #[track_caller]
    pub(super) fn control(&self, before: &[&str]) -> Rows {
        let decoy = ["sh", "-c", DECOY, "sh"];
        let words = [&decoy, before, &["python3", "try.py", "control.json"]].concat();
        Rows::of(&self.program(&words).run())
    }

    /// Runs the script in a jail.
    #[track_caller]
    pub(super) fn jailed(&self) -> Rows {
        Rows::of(&self.jail(&["python3", "try.py", "jailed.json"]))
    }

    pub(super) fn who(&self) -> String {
        format!("{:?} in a jail", self.user)
    }
}

/// Leaves the number of a process that the control may do anything to, where the gate's is left for
/// the jailed command, runs the words, and ends that process.
const DECOY: &str = "setsid sleep 3210 </dev/null >/dev/null 2>&1 & decoy=$!
echo $decoy >gate.pid; \"$@\"; code=$?; kill -9 $decoy 2>/dev/null; exit $code";
/// A word of the command line of that process.
pub(super) const DECOY_WORD: &str = "3210";
