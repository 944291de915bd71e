//! What a walkthrough finds at Acme: a registry, a forge, a file server, and a proxy that leads to
//! them. All of it is on loopback, at ports of its own; the manual shows fixed ones.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde_json::json;
use tempfile::TempDir;

use crate::kit::{
    Gate, Message, Origin, Pki, Program, Site, TIERS, Visit, allow, git_backend, names,
    npm_registry,
};

const NPM: &str = "npm.acme.example";
const GIT: &str = "git.acme.example";
const FILES: &str = "files.acme.example";
/// The port of all three, as the manual shows it.
const SHOWN_PORT: &str = "8443";
/// The proxy, as the manual shows it.
const SHOWN_PROXY: &str = "proxy.acme.example:3129";

pub(super) struct Company {
    origin: Origin,
    proxy: Gate,
    /// The certificate of the authority that the company's machines trust.
    ca: PathBuf,
    _root: TempDir,
}

impl Company {
    pub(super) fn new() -> Self {
        let (pki, root) = (Pki::new(), TempDir::new().expect("a folder"));
        let origin = origin(&pki, root.path());
        let port = origin.port();
        project(root.path(), port);
        let rules = [NPM, GIT, FILES].map(|host| allow(host, host, port));
        let all = names(&[NPM, GIT, FILES]);
        Self {
            proxy: Gate::with(&format!("{TIERS}{all}{}", rules.concat())),
            origin,
            ca: pki.write(root.path()),
            _root: root,
        }
    }

    /// The variables of the company's machines.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        let ca = self.ca.display().to_string();
        let trusts = ["npm_config_cafile", "GIT_SSL_CAINFO", "CURL_CA_BUNDLE"];
        let mut all: Vec<_> = trusts.map(|name| (name, ca.clone())).into();
        for name in ["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"] {
            all.push((name, "Ana".to_owned()));
        }
        for name in ["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"] {
            all.push((name, "ana@acme.example".to_owned()));
        }
        all.push(("npm_config_update_notifier", "false".to_owned()));
        // What the machine's own npm is told does not count here.
        all.push(("npm_config_globalconfig", "/dev/null".to_owned()));
        all
    }

    /// What the manual shows, as it is here.
    pub(super) fn real(&self, shown: &str) -> String {
        shown
            .replace(SHOWN_PROXY, &self.proxy.proxy().to_string())
            .replace(SHOWN_PORT, &self.origin.port().to_string())
    }

    /// What is printed here, as the manual shows it.
    pub(super) fn shown(&self, printed: &str) -> String {
        let port = self.origin.port();
        printed
            .replace(&self.proxy.proxy().to_string(), SHOWN_PROXY)
            .replace(&format!(":{port}"), &format!(":{SHOWN_PORT}"))
            .replace(&format!("[{port}]"), &format!("[{SHOWN_PORT}]"))
            .replace(&format!("port {port}"), &format!("port {SHOWN_PORT}"))
    }
}

/// All three servers, told apart by the host of a request.
fn origin(pki: &Pki, root: &Path) -> Origin {
    type Answers = Box<dyn Fn(&mut Visit, &Message) -> io::Result<()> + Send + Sync>;
    let registry: Arc<OnceLock<Answers>> = Arc::default();
    let forge = git_backend(root.to_owned());
    let files = Site::default().file("/build.tgz", "application/gzip", "a build\n");
    let (files, npm) = (files.answers(), registry.clone());
    let answer = move |visit: &mut Visit, request: &Message| {
        let host = request.field("host").unwrap_or_default();
        if host.starts_with(NPM) {
            npm.get().expect("the registry")(visit, request)
        } else if host.starts_with(GIT) {
            forge(visit, request)
        } else {
            files(visit, request)
        }
    };
    let origin = Origin::https(pki, &[NPM, GIT, FILES], answer);
    let url = format!("https://{NPM}:{}", origin.port());
    let is_new = registry.set(Box::new(npm_registry(&url))).is_ok();
    assert!(is_new, "set once");
    origin
}

/// A project with one dependency, in the forge.
fn project(root: &Path, port: u16) {
    let work = root.join("work");
    std::fs::create_dir(&work).expect("a folder");
    let registry = format!("https://{NPM}:{port}");
    let manifest = json!({
        "name": "web", "version": "1.0.0", "dependencies": { "demo": "1.0.0" },
    });
    let lock = json!({
        "name": "web", "version": "1.0.0", "lockfileVersion": 3, "requires": true,
        "packages": {
            "": { "name": "web", "version": "1.0.0", "dependencies": { "demo": "1.0.0" } },
            "node_modules/demo": {
                "version": "1.0.0", "resolved": format!("{registry}/demo/-/demo-1.0.0.tgz"),
            },
        },
    });
    let files = [
        ("package.json", manifest.to_string()),
        ("package-lock.json", lock.to_string()),
        (".npmrc", format!("registry={registry}/\n")),
    ];
    for (name, text) in files {
        std::fs::write(work.join(name), text).expect("a file");
    }
    let git = |words: &[&str]| {
        let identity = ["-c", "user.name=Ana", "-c", "user.email=ana@acme.example"];
        let program = Program::new("git", root).env("GIT_CONFIG_NOSYSTEM", "1");
        program
            .args(identity)
            .args(words)
            .within(root)
            .run()
            .succeeded()
    };
    git(&["init", "-q", "-b", "main", "work"]);
    git(&["-C", "work", "add", "."]);
    git(&["-C", "work", "commit", "-qm", "First"]);
    git(&["clone", "-q", "--bare", "work", "web.git"]);
}
