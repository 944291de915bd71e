//! A gate that ends TLS: clients trust its authority, and it trusts the authority of the origins.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Client, Gate, Line, Lines, Pki, Program, allow_more, eventually, names, until};

/// With what gates hash credentials.
pub(crate) const CREDENTIAL_KEY: &str = "a key for tests, of thirty-two letters";

/// A running gate that inspects, and a home for the programs that go through it.
pub(crate) struct Inside {
    /// The gate.
    pub(crate) gate: Gate,
    /// The authority that clients trust.
    pub(crate) trust: Pki,
    home: TempDir,
    ca: PathBuf,
}

/// A rule that lets everyone reach that host and port on loopback, and looks inside.
pub(crate) fn inspected(id: &str, host: &str, port: u16, lines: &str) -> String {
    let more = format!("grant.inspect = true\ngrant.upstream = \"test\"\n{lines}");
    allow_more(id, host, port, &more)
}

/// What `[inspect]` and `[upstream.test]` are for every gate of [`Inside`].
fn sections() -> &'static str {
    "
[inspect]
ca-cert = \"inspect.pem\"
ca-key = \"inspect.key\"
credential-key = \"credentials.key\"

[upstream.test]
roots = [\"origins.pem\"]
"
}

/// Whether a flow is one of the gate itself.
fn is_own(line: &Line) -> bool {
    line.text("user.id") == "tidegate" && line.text("tidegate.channel") == "gate"
}

impl Inside {
    /// Starts with these tiers and rules; every one of `hosts` is on loopback.
    pub(crate) fn start(origins: &Pki, hosts: &[&str], policy: &str) -> Self {
        Self::with(origins, &Self::text(hosts, policy), &[])
    }

    /// Starts with that whole policy, and these files beside it.
    pub(crate) fn with(origins: &Pki, text: &str, files: &[(&str, String)]) -> Self {
        let (trust, home) = (Pki::for_leaves(), TempDir::new().expect("a home"));
        let plan = Gate::plan(text)
            .file("inspect.pem", &trust.pem())
            .file("inspect.key", &trust.key_pem())
            .file("origins.pem", &origins.pem())
            .file("credentials.key", CREDENTIAL_KEY);
        let files = files.iter();
        let plan = files.fold(plan, |plan, (name, text)| plan.file(name, text));
        let gate = plan.start();
        let ca = trust.write(home.path());
        Self {
            gate,
            trust,
            home,
            ca,
        }
    }

    /// The whole policy, e.g. for a reload.
    pub(crate) fn text(hosts: &[&str], policy: &str) -> String {
        format!("{policy}{}{}", names(hosts), sections())
    }

    /// The home of the programs.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where the certificate of the authority is that programs trust.
    pub(crate) fn ca(&self) -> &Path {
        &self.ca
    }

    /// A tunnel to that host and port, TLS with the gate inside.
    #[track_caller]
    pub(crate) fn enter(&self, host: &str, port: u16) -> Client {
        let mut client = self.gate.client();
        client.tunnel(&format!("{host}:{port}"));
        client.enter(&self.trust, host)
    }

    /// A program by name that goes through the gate and trusts its authority.
    pub(crate) fn program(&self, name: &str) -> Program {
        self.prepared(Program::new(name, self.home()))
    }

    /// A program that goes through the gate and trusts its authority, each in its own way.
    pub(crate) fn prepared(&self, program: Program) -> Program {
        let mut program = program.through(&self.gate.url());
        for name in [
            "CURL_CA_BUNDLE",
            "SSL_CERT_FILE",
            "GIT_SSL_CAINFO",
            "PIP_CERT",
            "REQUESTS_CA_BUNDLE",
            "NODE_EXTRA_CA_CERTS",
            "npm_config_cafile",
            "CARGO_HTTP_CAINFO",
        ] {
            program = program.env(name, &self.ca);
        }
        program
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("PIP_CONFIG_FILE", "/dev/null")
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            .env("npm_config_globalconfig", "/dev/null")
            .env("npm_config_update_notifier", "false")
            .env("npm_config_audit", "false")
            .env("npm_config_fund", "false")
    }

    /// The requests inside tunnels that were judged so far, in order; each belongs to a tunnel
    /// that is on record as inspected.
    #[track_caller]
    pub(crate) fn judged(&self) -> Vec<Line> {
        // A refusal is told to the client while its line is on its way to the file.
        until("every line is written", || {
            let waiting = self.gate.metrics().sum("tidegate_record_queue_length", &[]);
            waiting < 0.5
        });
        let lines = self.gate.records();
        let decisions = lines.named("decision");
        let mut inner: Vec<Line> = decisions.clone();
        inner.retain(|line| line.has("tidegate.flow.parent") && !is_own(line));
        for line in &inner {
            assert_eq!(line.text("tidegate.tls.mode"), "inspected", "{line:?}");
            let parent = line.text("tidegate.flow.parent");
            let tunnel = decisions.iter().find(|tunnel| tunnel.flow() == parent);
            let tunnel = tunnel.unwrap_or_else(|| panic!("no tunnel of {line:?}"));
            assert_eq!(tunnel.text("tidegate.tls.mode"), "inspected", "{tunnel:?}");
            assert_eq!(tunnel.text("http.request.method"), "CONNECT", "{tunnel:?}");
        }
        inner
    }

    /// What was decided about the gate's own fetches, each with the request that it was for.
    pub(crate) fn fetched(&self) -> Vec<(Line, Line)> {
        let judged = self.judged();
        let own = self.gate.records().named("decision");
        let own = own.into_iter().filter(is_own);
        let parent = |line: Line| {
            let parent = line.text("tidegate.flow.parent");
            let found = judged.iter().find(|it| it.flow() == parent).cloned();
            let found = found.unwrap_or_else(|| panic!("no request of {line:?}"));
            (line, found)
        };
        own.map(parent).collect()
    }

    /// The first request inside that was refused with that code.
    #[track_caller]
    pub(crate) fn refused(&self, code: &str) -> Line {
        let line = eventually(code, || {
            let mut judged = self.judged().into_iter();
            judged.find(|line| line.reason() == code)
        });
        assert_ne!(line.verdict(), "allow", "{line:?}");
        line
    }

    /// Every request inside was let through, and at least one with that action.
    #[track_caller]
    pub(crate) fn all_passed(&self, action: &str) {
        let all = self.judged();
        assert!(
            all.iter().all(|line| line.verdict() == "allow"),
            "not all passed: {all:?}"
        );
        let seen = all
            .iter()
            .any(|line| line.text("tidegate.action") == action);
        assert!(seen, "no {action} in {all:?}");
    }
}
