//! `tidegate exec --jail`, as root and as an ordinary user: what is allowed gets out whether a
//! program heeds proxies or not, nothing else does, and the records say who tried.

use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tempfile::TempDir;

use crate::clients::repository;
use crate::kit::{
    Line, Message, Origin, Outcome, Pki, Program, Site, TIERS, Visit, allow, allow_more,
    copy_program, git_backend, need, npm_registry, pypi_registry, read_log, until,
};

const HOST: &str = "files.example.com";
const REFUSED: &str = "elsewhere.example.net";
/// Nobody's address (RFC 5737).
const NOWHERE: &str = "192.0.2.1";
const SESSION: &str = "0197a000-0000-7000-8000-000000000001";
/// An ordinary user.
const NOBODY: u32 = 65_534;
/// The programs of the system, which any user can run.
const SYSTEM: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
const UNSET: &str = "unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy \
                     JAVA_TOOL_OPTIONS npm_config_proxy npm_config_https_proxy PIP_PROXY \
                     GIT_CONFIG_PARAMETERS";

/// Who runs the command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum User {
    Me,
    Nobody,
}

impl User {
    /// Who runs the tests and, where that is root, an ordinary user as well.
    pub(crate) fn all() -> Vec<Self> {
        if is_root() {
            vec![Self::Me, Self::Nobody]
        } else {
            eprintln!("NOT TESTED HERE: the jail of root: run as root");
            vec![Self::Me]
        }
    }

    pub(crate) fn ordinary() -> Self {
        if is_root() { Self::Nobody } else { Self::Me }
    }

    /// A program that this user runs.
    pub(crate) fn program(self, path: &Path, home: &Path) -> Program {
        match self {
            Self::Me => Program::at(path, home),
            Self::Nobody => {
                let (user, id) = (need("setpriv"), NOBODY.to_string());
                Program::at(&user, home)
                    .env("PATH", SYSTEM)
                    .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
                    .args([path])
            }
        }
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A home with a copy of the program, a policy, an authority and a working copy.
pub(crate) struct World {
    pub(crate) user: User,
    pub(crate) home: TempDir,
    pub(crate) binary: PathBuf,
    ca: PathBuf,
}

impl World {
    /// With these rules, and more names for the gate than its own.
    pub(crate) fn new(user: User, pki: &Pki, hosts: &[(&str, Ipv4Addr)], rules: &str) -> Self {
        let home = TempDir::new().expect("a home");
        let binary = home.path().join("tidegate");
        copy_program(Path::new(env!("CARGO_BIN_EXE_tidegate")), &binary);
        let ca = pki.write(home.path());
        let local = [(HOST, Ipv4Addr::LOCALHOST), (REFUSED, Ipv4Addr::LOCALHOST)];
        let names = local.iter().chain(hosts);
        let names: Vec<_> = names
            .map(|(name, address)| format!("\"{name}\" = [\"{address}\"]"))
            .collect();
        let text = format!(
            "[listen]\ncontrol = \"unix:control.sock\"\n[record]\nfile = \"decisions.jsonl\"\n\
             {TIERS}\n[[repository]]\nmatch = \"forge.example/acme/web\"\ntier = \"open\"\n\n\
             [[workspace]]\npath = \"{}/web/**\"\nrepository = \"forge.example/acme/web\"\n\n\
             [dial]\nhosts = {{ {} }}\n{rules}",
            home.path().canonicalize().expect("a path").display(),
            names.join(", ")
        );
        std::fs::write(home.path().join("tidegate.toml"), text).expect("a file");
        let world = Self {
            user,
            home,
            binary,
            ca,
        };
        world.working_copy();
        world.hand_over();
        world
    }

    /// With one origin over TLS.
    pub(crate) fn of(user: User, pki: &Pki, origin: &Origin) -> Self {
        Self::new(user, pki, &[], &allow("files", HOST, origin.port()))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn working_copy(&self) {
        let at = self.path("web").display().to_string();
        let git = |words: &[&str]| {
            let git = Program::new("git", self.home.path()).env("GIT_CONFIG_NOSYSTEM", "1");
            git.args(["-c", "user.name=Ana", "-c", "user.email=ana@acme.example"])
                .args(words)
                .run()
                .succeeded()
        };
        git(&["init", "-q", "-b", "main", &at]);
        git(&["-C", &at, "commit", "-q", "--allow-empty", "-m", "First"]);
        let url = "https://forge.example/acme/web.git";
        git(&["-C", &at, "remote", "add", "origin", url]);
    }

    /// Everything in the home is its user's.
    pub(crate) fn hand_over(&self) {
        if self.user == User::Nobody {
            give(self.home.path());
        }
    }

    /// Whether this user can make a jail here; says so where not.
    pub(crate) fn can(&self) -> bool {
        let home = self.home.path();
        let tried = self.user.program(&need("unshare"), home);
        let outcome = tried.args(["-Urnm", "true"]).run();
        if !outcome.success {
            let why = outcome.stderr;
            eprintln!("NOT TESTED HERE: {:?} makes no jail: {why}", self.user);
        }
        outcome.success
    }

    pub(crate) fn command(&self) -> Program {
        let home = self.home.path();
        let mut program = self
            .user
            .program(&self.binary, home)
            .within(&self.path("web"));
        for name in [
            "CURL_CA_BUNDLE",
            "SSL_CERT_FILE",
            "GIT_SSL_CAINFO",
            "PIP_CERT",
            "NODE_EXTRA_CA_CERTS",
            "npm_config_cafile",
        ] {
            program = program.env(name, &self.ca);
        }
        program
            .args(["exec", "--session", SESSION, "--config"])
            .args([self.path("tidegate.toml")])
    }

    /// Runs a script in a jail.
    pub(crate) fn jail(&self, script: &str) -> Outcome {
        self.command()
            .args(["--jail", "--", "bash", "-c", script])
            .run()
    }

    /// The process of the gate that runs.
    pub(crate) fn gate(&self) -> u32 {
        let begin = format!("{}\0exec\0", self.binary.display());
        let entries = std::fs::read_dir("/proc").expect("processes").flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_gate = |pid: &u32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline"));
            command.is_ok_and(|words| words.starts_with(begin.as_bytes()))
        };
        pids.find(is_gate).expect("a gate")
    }

    pub(crate) fn decisions(&self) -> Vec<Line> {
        let lines = read_log(&self.path("decisions.jsonl"));
        lines.into_iter().filter(Line::is_decision).collect()
    }

    /// Each of these is on record once or more, with its decision and caller; and nothing else is.
    #[track_caller]
    fn recorded(&self, wanted: &[(&str, &str, &str)]) {
        let lines = self.decisions();
        for (host, verdict, command) in wanted {
            let such = |line: &&Line| {
                line.text("server.address") == *host
                    && line.verdict() == *verdict
                    && line.text("process.command").contains(command)
            };
            assert!(
                lines.iter().any(|line| such(&line)),
                "no {verdict} of {host} for {command} in {lines:#?}"
            );
        }
        for line in &lines {
            let such = |(host, verdict, _): &&(&str, &str, &str)| {
                line.text("server.address") == *host && line.verdict() == *verdict
            };
            assert!(wanted.iter().any(|one| such(&one)), "{line:#?}");
            assert_eq!(line.text("session.id"), SESSION, "{line:#?}");
            assert_eq!(line.text("tidegate.session.trust"), "verified", "{line:#?}");
            let repository = line.text("vcs.repository.url.full");
            assert_eq!(repository, "forge.example/acme/web", "{line:#?}");
            let trust = line.text("tidegate.repository.trust");
            assert_eq!(trust, "verified", "{line:#?}");
            assert!(line.has("process.pid"), "{line:#?}");
        }
    }
}

/// Gives a folder and everything in it to the ordinary user; links are not followed.
pub(crate) fn give(path: &Path) {
    lchown(path, Some(NOBODY), Some(NOBODY)).expect("an owner");
    if path.is_symlink() {
        return;
    }
    if path.is_dir() {
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("a mode");
        for entry in std::fs::read_dir(path).expect("a folder").flatten() {
            give(&entry.path());
        }
    }
}

pub(crate) fn hello(pki: &Pki) -> Origin {
    let site = Site::default().file("/hello.txt", "text/plain", "hello from the origin\n");
    Origin::https(pki, &[HOST, REFUSED], site.answers())
}

/// The three URLs that tests try: allowed, refused by name, refused by address.
fn urls(port: u16) -> [String; 3] {
    [HOST, REFUSED, NOWHERE].map(|host| format!("https://{host}:{port}/hello.txt"))
}

#[test]
fn one_gets_out_and_the_rest_is_contained() {
    for user in User::all() {
        let pki = Pki::new();
        let origin = hello(&pki);
        let world = World::of(user, &pki, &origin);
        if !world.can() {
            continue;
        }
        let [allowed, refused, nowhere] = urls(origin.port());
        let outcome = world.jail(&format!(
            "curl -sS {allowed}; {UNSET}; curl -sS {refused} || echo contained $?; \
             curl -sS {nowhere} || echo contained $?; \
             python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)' \
             || echo contained $?; id -u; exit 5"
        ));
        assert_eq!(outcome.code, Some(5), "{user:?}: {outcome:#?}");
        let id = match user {
            User::Me => rustix::process::geteuid().as_raw(),
            User::Nobody => NOBODY,
        };
        let said = format!("hello from the origin\ncontained 6\ncontained 35\ncontained 1\n{id}\n");
        assert_eq!(outcome.stdout, said, "{user:?}: {outcome:#?}");
        let outcome = outcome.showed("Operation not permitted");
        // What the alert says to who was captured.
        outcome.showed("access denied");
        assert_eq!(origin.requests().len(), 1);
        world.recorded(&[
            (HOST, "allow", "curl"),
            (REFUSED, "deny", "curl"),
            (NOWHERE, "deny", "curl"),
        ]);
    }
}

#[test]
fn codes_are_those_of_a_shell() {
    for user in User::all() {
        let pki = Pki::new();
        let world = World::of(user, &pki, &hello(&pki));
        if !world.can() {
            continue;
        }
        assert_eq!(world.jail("exit 7").code, Some(7));
        assert_eq!(world.jail("kill -9 $$").code, Some(137));
        for (word, code) in [("nowhere-at-all", 127), ("/", 126)] {
            let outcome = world.command().args(["--jail", "--", word]).run();
            assert_eq!(outcome.code, Some(code), "{user:?}: {outcome:#?}");
            outcome.showed(&format!("tidegate: {word}: "));
        }
    }
}

#[test]
fn node_s_fetch_is_captured() {
    for user in User::all() {
        let pki = Pki::new();
        let origin = hello(&pki);
        let world = World::of(user, &pki, &origin);
        if !world.can() {
            continue;
        }
        let program = "const tries = async () => { for (const url of process.argv.slice(1)) \
                       await fetch(url).then(r => r.text()).then(t => console.log('got', t.trim()), \
                       e => console.log('refused', e.cause?.code)) }; tries()";
        let [allowed, refused, nowhere] = urls(origin.port());
        let outcome = world.jail(&format!(
            "node -e \"{program}\" {allowed} {refused} {nowhere}"
        ));
        let said = "got hello from the origin\nrefused ENOTFOUND\n\
                    refused ERR_SSL_TLSV1_ALERT_ACCESS_DENIED\n";
        assert_eq!(outcome.stdout, said, "{user:?}: {outcome:#?}");
        world.recorded(&[
            (HOST, "allow", "node -e"),
            (REFUSED, "deny", "node -e"),
            (NOWHERE, "deny", "node -e"),
        ]);
        let lines = world.decisions();
        let hows: Vec<_> = lines
            .iter()
            .map(|line| line.text("network.protocol.name"))
            .collect();
        assert_eq!(hows, ["captured", "dns", "captured"], "{lines:#?}");
    }
}

/// Says what became of each URL; as most Java programs, it knows of no proxy.
const JAVA: &str = r#"
import java.net.URL;
import javax.net.ssl.HttpsURLConnection;

public class Fetch {
    public static void main(String[] urls) {
        for (String url : urls) {
            try {
                var connection = (HttpsURLConnection) new URL(url).openConnection();
                var text = new String(connection.getInputStream().readAllBytes());
                System.out.println("got " + text.trim());
            } catch (Exception error) {
                System.out.println("refused " + error.getClass().getSimpleName() + " " + error.getMessage());
            }
        }
    }
}
"#;

#[test]
fn a_java_program_is_captured() {
    for user in User::all() {
        let pki = Pki::new();
        let origin = hello(&pki);
        let world = World::of(user, &pki, &origin);
        if !world.can() {
            continue;
        }
        std::fs::write(world.path("web/Fetch.java"), JAVA).expect("a file");
        let words = "-importcert -noprompt -alias test -file ca.pem -keystore web/trust.p12 \
                     -storetype PKCS12 -storepass changeit";
        Program::new("keytool", world.home.path())
            .args(words.split_ascii_whitespace())
            .run()
            .succeeded();
        world.hand_over();
        let outcome = world.jail(&format!(
            "{UNSET}; java -Djavax.net.ssl.trustStore=trust.p12 \
             -Djavax.net.ssl.trustStorePassword=changeit Fetch.java {}",
            urls(origin.port()).join(" ")
        ));
        let said = format!(
            "got hello from the origin\nrefused UnknownHostException {REFUSED}\n\
             refused SSLHandshakeException Received fatal alert: access_denied\n"
        );
        assert_eq!(outcome.stdout, said, "{user:?}: {outcome:#?}");
        world.recorded(&[
            (HOST, "allow", "java -Djavax"),
            (REFUSED, "deny", "java -Djavax"),
            (NOWHERE, "deny", "java -Djavax"),
        ]);
    }
}

/// Everything that the clients ask for: a repository, a package, an index.
fn forge(pki: &Pki, root: &Path) -> Origin {
    type Answers = Box<dyn Fn(&mut Visit, &Message) -> std::io::Result<()> + Send + Sync>;
    repository(root);
    let git = git_backend(root.to_owned());
    let index = pypi_registry("");
    let registry = Arc::new(OnceLock::<Answers>::new());
    let later = registry.clone();
    let origin = Origin::https(pki, &[HOST], move |visit, request| {
        match request.target().split('/').nth(1) {
            Some("repo.git") => git(visit, request),
            Some("simple" | "packages") => index(visit, request),
            _ => later.get().expect("the answers")(visit, request),
        }
    });
    let answers: Answers = Box::new(npm_registry(&format!("https://{HOST}:{}", origin.port())));
    assert!(registry.set(answers).is_ok(), "set once");
    origin
}

#[test]
fn real_clients_work_with_and_without_variables() {
    let (pki, root) = (Pki::new(), TempDir::new().expect("a folder"));
    let origin = forge(&pki, root.path());
    let world = World::of(User::Me, &pki, &origin);
    if !world.can() {
        return;
    }
    let tries = |at: &str, to: &str| {
        format!(
            "(mkdir {to} && cd {to} && curl -sS -o page {at}/demo && git clone -q {at}/repo.git copy \
             && npm install --no-save --no-audit --no-fund --registry={at}/ demo \
             && pip download -q --no-deps --no-cache-dir --index-url {at}/simple/ demo-package \
             && test -s page -a -s copy/README.md -a -s node_modules/demo/index.js \
             && test -s demo_package-1.0-py3-none-any.whl && echo all of {to})"
        )
    };
    let at = format!("https://{HOST}:{}", origin.port());
    let other = format!("https://{REFUSED}:{}", origin.port());
    let outcome = world.jail(&format!(
        "exec 2>&1; export GIT_CONFIG_NOSYSTEM=1 PIP_CONFIG_FILE=/dev/null; {}; {UNSET}; {}; \
         ! git clone -q {other}/repo.git other && ! curl -sS {other}/ \
         && ! npm view --fetch-retries=0 --registry={other}/ demo \
         && ! pip download -q --retries 0 --no-deps --index-url {other}/simple/ demo-package \
         && echo none of the other",
        tries(&at, "proxied"),
        tries(&at, "captured"),
    ));
    let outcome = outcome.succeeded().showed("all of proxied");
    outcome
        .showed("all of captured")
        .showed("none of the other");
    world.recorded(&[
        (HOST, "allow", "curl"),
        (HOST, "allow", "git"),
        (HOST, "allow", "npm"),
        (HOST, "allow", "pip"),
        (REFUSED, "deny", "git"),
    ]);
}

/// A listener at a port of the first thousand on an address of its own; says so where this user
/// cannot have one.
fn privileged(port: u16) -> Option<TcpListener> {
    let [.., a, b] = std::process::id().to_be_bytes();
    for last in 2..250 {
        let address = SocketAddr::from(([127, a.max(1), b, last], port));
        match TcpListener::bind(address) {
            Ok(listener) => return Some(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => {
                eprintln!("NOT TESTED HERE: what is allowed at port {port}: {error}");
                return None;
            }
        }
    }
    panic!("no address is free");
}

fn address(listener: &TcpListener) -> Ipv4Addr {
    match listener.local_addr().expect("an address") {
        SocketAddr::V4(address) => *address.ip(),
        SocketAddr::V6(address) => panic!("{address}"),
    }
}

#[test]
fn port_80_is_judged_like_a_request() {
    let pki = Pki::new();
    let listener = privileged(80);
    let at = listener.as_ref().map_or(Ipv4Addr::LOCALHOST, address);
    let origin = listener.map(|listener| Origin::http_on(listener, Visit::echo));
    let rules = [
        allow("plain", "plain.example.com", 80),
        allow("files", HOST, 443),
    ];
    let hosts = [("plain.example.com", at)];
    let world = World::new(User::Me, &pki, &hosts, &rules.concat());
    if !world.can() {
        return;
    }
    let fetch = "curl -s -w ' %{http_code}\\n'";
    let allowed = if origin.is_some() {
        format!("{fetch} http://plain.example.com/a?b=c")
    } else {
        "true".to_owned()
    };
    let outcome = world.jail(&format!(
        "{UNSET}; {allowed}; {fetch} http://{HOST}/; \
         {fetch} -H 'Host: {REFUSED}' http://plain.example.com/; \
         {fetch} http://169.254.169.254/latest/meta-data/; {fetch} http://{REFUSED}/ || echo $?"
    ));
    let ends: Vec<_> = outcome
        .stdout
        .lines()
        .filter_map(|line| line.rsplit(' ').next())
        .filter(|end| end.len() == 3 && end.bytes().all(|byte| byte.is_ascii_digit()))
        .collect();
    let wanted: &[&str] = match &origin {
        Some(_) => &["200", "403", "400", "403", "000"],
        None => &["403", "400", "403", "000"],
    };
    assert_eq!(ends, wanted, "{outcome:#?}");
    let outcome = outcome.showed("port_denied").showed("address_denied");
    outcome.showed("the Host field is not where this connection was meant to go");
    let lines = world.decisions();
    let of = |host: &str| -> Vec<_> {
        let lines = lines.iter();
        let such = lines.filter(|line| line.text("server.address") == host);
        such.map(|line| (line.text("network.protocol.name"), line.reason()))
            .collect()
    };
    assert_eq!(of("169.254.169.254"), [("captured", "address_denied")]);
    assert_eq!(of(HOST), [("captured", "port_denied")]);
    assert_eq!(of(REFUSED), [("dns", "not_allowed")]);
    if let Some(origin) = origin {
        let plain = [("captured", "allowed"), ("captured", "bad_request")];
        assert_eq!(of("plain.example.com"), plain);
        let seen = origin.requests();
        assert_eq!(seen.len(), 1, "{seen:#?}");
        assert_eq!(seen[0].target(), "/a?b=c");
        assert_eq!(seen[0].field("host"), Some("plain.example.com"));
    }
}

#[test]
fn ssh_is_judged_like_any_target() {
    let pki = Pki::new();
    let answers = |visit: &mut Visit| {
        let hello = visit.exactly(9)?;
        visit.note(&hello);
        visit.say(b"SSH-2.0-b\r\n")
    };
    let (at, origin) = match privileged(22) {
        Some(listener) => (address(&listener), Origin::raw_on(listener, answers)),
        None => (Ipv4Addr::LOCALHOST, Origin::raw(answers)),
    };
    let port = origin.port();
    let rules = [
        allow_more("forge", "ssh.example.com", port, "grant.raw = true"),
        allow("tls", "tls.example.com", port),
    ];
    let hosts = [("ssh.example.com", at), ("tls.example.com", at)];
    let world = World::new(User::Me, &pki, &hosts, &rules.concat());
    if !world.can() {
        return;
    }
    let script = "
import socket, sys
for host in sys.argv[2:]:
    try:
        with socket.create_connection((host, int(sys.argv[1])), 30) as client:
            client.sendall(b'SSH-2.0-a')
            print('got', client.recv(100))
    except OSError as error:
        print('refused', type(error).__name__)
";
    std::fs::write(world.path("web/ssh.py"), script).expect("a file");
    let outcome = world.jail(&format!(
        "python3 ssh.py {port} ssh.example.com tls.example.com {REFUSED} {NOWHERE}"
    ));
    let said: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(said.len(), 4, "{outcome:#?}");
    assert_eq!(said[0], "got b'SSH-2.0-b\\r\\n'", "{outcome:#?}");
    assert!(!said[1].contains("SSH"), "{outcome:#?}");
    assert_eq!(said[2], "refused gaierror", "{outcome:#?}");
    assert_eq!(said[3], "refused ConnectionResetError", "{outcome:#?}");
    assert_eq!(origin.received(), b"SSH-2.0-a");
    let text = format!("{:#?}", read_log(&world.path("decisions.jsonl")));
    for reason in ["allowed", "not_tls", "not_allowed", "address_denied"] {
        assert!(text.contains(reason), "no {reason} in {text}");
    }
}

/// Asks servers of both families over UDP and TCP; takes no answer of another address.
const RESOLVE: &str = r#"
import socket, struct, sys

def question(name, kind):
    labels = b"".join(bytes([len(part)]) + part for part in name.encode().split(b"."))
    return b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0" + labels + b"\0" + struct.pack(">HH", kind, 1)

def exactly(client, count):
    data = b""
    while len(data) < count:
        data += client.recv(count - len(data)) or sys.exit("it ended")
    return data

def ask(server, tcp, connected, name, kind):
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    asked = question(name, kind)
    with socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as client:
        client.settimeout(30)
        if tcp:
            client.connect((server, 53))
            client.sendall(struct.pack(">H", len(asked)) + asked)
            return exactly(client, struct.unpack(">H", exactly(client, 2))[0])
        if connected:
            client.connect((server, 53))
            client.send(asked)
            return client.recv(1500)
        client.bind(("::1" if ":" in server else "127.0.0.1", 0))
        client.sendto(asked, (server, 53))
        answer, peer = client.recvfrom(1500)
        assert peer[0] == server, (peer, server)
        return answer

known, unknown = sys.argv[1:]
for server in ["127.0.0.1", "9.9.9.9", "::1", "2001:db8::1"]:
    for tcp, connected in [(False, True), (False, False), (True, True)]:
        for kind, family, size in [(1, socket.AF_INET, 4), (28, socket.AF_INET6, 16)]:
            answer = ask(server, tcp, connected, known, kind)
            print("known", answer[3] & 15, socket.inet_ntop(family, answer[-size:]))
        answer = ask(server, tcp, connected, unknown, 1)
        print("unknown", answer[3] & 15)
"#;

#[test]
fn any_name_server_answers_from_its_own_address() {
    for user in User::all() {
        let pki = Pki::new();
        let origin = hello(&pki);
        let world = World::of(user, &pki, &origin);
        if !world.can() {
            continue;
        }
        std::fs::write(world.path("web/resolve.py"), RESOLVE).expect("a file");
        world.hand_over();
        let outcome = world.jail(&format!("python3 resolve.py {HOST} {REFUSED}"));
        let one = "known 0 28.0.0.1\nknown 0 3000::1\nunknown 3\n";
        assert_eq!(outcome.stdout, one.repeat(12), "{user:?}: {outcome:#?}");
        world.recorded(&[(REFUSED, "deny", "resolve.py")]);
        // One record for all who asked.
        assert_eq!(world.decisions().len(), 1);
        origin.saw_nothing();
    }
}

#[test]
fn a_service_on_loopback_that_a_variable_names_is_decided_and_on_record() {
    for user in User::all() {
        let pki = Pki::new();
        let origin = hello(&pki);
        let world = World::of(user, &pki, &origin);
        if !world.can() {
            continue;
        }
        let outcome = world
            .command()
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
            .args(["--jail", "--", "bash", "-c"])
            .args(["curl -s http://127.0.0.1:4318/; true"])
            .run()
            .succeeded();
        let lines = world.decisions();
        let asked: Vec<_> = lines.iter().map(place).collect();
        assert_eq!(asked, [("127.0.0.1", 4318)], "{user:?}: {outcome:#?}");
        assert_eq!(lines[0].verdict(), "deny");
    }
}

fn place(line: &Line) -> (&str, u64) {
    (line.text("server.address"), line.number("server.port"))
}

#[test]
fn a_port_that_nothing_captures_is_on_record() {
    for user in User::all() {
        let pki = Pki::new();
        let origin = hello(&pki);
        let world = World::of(user, &pki, &origin);
        if !world.can() {
            continue;
        }
        let tried = format!(
            "for at in 127.0.0.1:4319 '[::1]:4320' {NOWHERE}:8443 {HOST}:8443 {NOWHERE}:8443; \
             do curl -s --noproxy '*' \"http://$at/\"; done; true"
        );
        let outcome = world.jail(&tried).succeeded();
        let lines = world.decisions();
        let mut seen: Vec<_> = lines.iter().map(place).collect();
        seen.sort_unstable();
        let tried = [
            ("127.0.0.1", 4319),
            (NOWHERE, 8443),
            ("::1", 4320),
            (HOST, 8443),
        ];
        assert_eq!(seen, tried, "{user:?}: {outcome:#?}");
        for line in &lines {
            assert_eq!(line.verdict(), "deny", "{line:#?}");
            assert_eq!(line.text("network.protocol.name"), "captured", "{line:#?}");
            assert_eq!(line.text("session.id"), SESSION, "{line:#?}");
        }
        let of = |host: &str| {
            lines
                .iter()
                .find(|line| line.text("server.address") == host)
        };
        let reason = |host: &str| of(host).map(|line| line.text("tidegate.reason").to_owned());
        assert_eq!(reason(HOST).as_deref(), Some("port_denied"));
        assert_eq!(reason("127.0.0.1").as_deref(), Some("address_denied"));
    }
}

#[test]
fn a_server_of_the_command_that_is_not_up_yet_is_no_refusal() {
    let user = User::ordinary();
    let pki = Pki::new();
    let world = World::of(user, &pki, &hello(&pki));
    if !world.can() {
        return;
    }
    // `localhost` may be `::1` first, where this server does not listen.
    let script = "curl -s http://127.0.0.1:8123/; \
         python3 -m http.server -b 127.0.0.1 8123 >/dev/null 2>&1 & \
         until curl -s http://localhost:8123/ >/dev/null; do :; done; \
         curl -s http://127.0.0.1:8124/; until [ -e done ]; do sleep 0.2; done; kill $!";
    std::thread::scope(|scope| {
        scope.spawn(|| world.jail(script).succeeded());
        let is_on_record = || !world.decisions().is_empty();
        until("the port without a server is on record", is_on_record);
        std::fs::write(world.path("web/done"), "").expect("a file");
    });
    let lines = world.decisions();
    let seen: Vec<_> = lines.iter().map(place).collect();
    assert_eq!(seen, [("127.0.0.1", 8124)], "{lines:#?}");
}

#[test]
fn one_line_of_policy_lets_a_jail_reach_a_collector_on_loopback() {
    for user in User::all() {
        let pki = Pki::new();
        let collector = Origin::http(|visit, _| visit.answer("200 OK", "text/plain", b"taken"));
        let line = format!(
            "collector.otel.url = \"http://127.0.0.1:{}\"\n",
            collector.port()
        );
        let world = World::new(user, &pki, &[], "");
        if !world.can() {
            continue;
        }
        let file = world.path("tidegate.toml");
        let text = std::fs::read_to_string(&file).expect("a policy");
        std::fs::write(&file, line + &text).expect("a file");
        let at = collector.port();
        let outcome = world
            .jail(&format!(
                "curl -s --noproxy '*' -d x http://127.0.0.1:{at}/v1/logs; \
                 curl -s --noproxy '*' -d x http://localhost:{at}/v1/logs"
            ))
            .succeeded();
        assert_eq!(outcome.stdout, "takentaken", "{user:?}: {outcome:#?}");
        let lines = world.decisions();
        let rules: Vec<_> = lines
            .iter()
            .map(|line| line.text("security_rule.name"))
            .collect();
        assert_eq!(rules, ["collector.otel"; 2], "{lines:#?}");
    }
}

/// Looks into a process in every way that its user has.
const LOOK: &str = r#"
import ctypes, os, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def attach():
    if libc.ptrace(0x4206, pid, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
def memory():
    with open(f"/proc/{pid}/maps") as maps:
        place = int(maps.readline().split("-")[0], 16)
    with open(f"/proc/{pid}/mem", "rb") as file:
        file.seek(place)
        file.read(4)
def variables():
    open(f"/proc/{pid}/environ", "rb").read()
def descriptors():
    folder = f"/proc/{pid}/fd"
    os.close(os.open(f"{folder}/{os.listdir(folder)[0]}", os.O_PATH))
for way in [variables, memory, descriptors, attach]:
    try:
        way()
        print("seen", way.__name__)
    except OSError:
        print("kept", way.__name__)
"#;
const KEPT: &str = "kept variables\nkept memory\nkept descriptors\nkept attach\n";

#[test]
fn nobody_of_the_same_user_looks_into_the_gate() {
    let user = User::ordinary();
    let pki = Pki::new();
    let world = World::of(user, &pki, &hello(&pki));
    if !world.can() {
        return;
    }
    std::fs::write(world.path("web/look.py"), LOOK).expect("a file");
    world.hand_over();
    let look = |pid: &str| {
        let bash = user.program(&need("bash"), &world.path("web"));
        bash.args(["-c", &format!("python3 look.py {pid}")]).run()
    };
    // Of a process of its own a user sees all that the system lets it.
    let own = look("$$");
    assert!(own.stdout.contains("seen variables"), "{own:#?}");
    let script = "touch begun; until test -e gate; do sleep 0.05; done; \
                  python3 look.py $(cat gate); python3 look.py 1";
    let (inside, outside) = std::thread::scope(|scope| {
        let inside = scope.spawn(|| world.jail(script));
        until("the beginning", || {
            world.path("web/begun").exists() || inside.is_finished()
        });
        let gate = world.gate();
        let outside = look(&gate.to_string());
        std::fs::write(world.path("part"), gate.to_string()).expect("a file");
        std::fs::rename(world.path("part"), world.path("web/gate")).expect("a name");
        (inside.join().expect("a command"), outside)
    });
    assert_eq!(inside.stdout, KEPT.repeat(2), "{inside:#?}");
    assert_eq!(outside.stdout, KEPT, "{outside:#?}");
}

#[test]
fn what_leads_to_another_gate_is_not_there() {
    for user in User::all() {
        let pki = Pki::new();
        let world = World::of(user, &pki, &hello(&pki));
        if !world.can() {
            continue;
        }
        let socket = world.path("control.sock");
        let _listener = UnixListener::bind(&socket).expect("a socket");
        UnixStream::connect(&socket).expect("it can be reached outside");
        std::fs::write(world.path("decisions.jsonl"), "{\"old\":1}\n").expect("a file");
        world.hand_over();
        let script = format!(
            "test -e ../control.sock || echo no socket; test -e ../decisions.jsonl || echo none; \
             test -e ../tidegate.toml || echo no policy; \
             echo x >>../decisions.jsonl; rm -rf ../decisions.jsonl; mv ../web ../other; \
             curl -s https://{REFUSED}/; true"
        );
        let outcome = world.jail(&script);
        let said = "no socket\nnone\nno policy\n";
        assert_eq!(outcome.stdout, said, "{outcome:#?}");
        assert_eq!(world.decisions().len(), 1);
        let text = std::fs::read_to_string(world.path("decisions.jsonl")).expect("records");
        assert!(text.starts_with("{\"old\":1}\n"), "{text}");
        assert!(!text.contains("\nx\n"), "{text}");
        assert!(
            world.path("web/.git").exists(),
            "the working copy was moved"
        );
    }
}

#[test]
fn where_user_namespaces_are_forbidden_nothing_is_run() {
    for user in User::all() {
        let pki = Pki::new();
        let world = World::of(user, &pki, &hello(&pki));
        if !world.can() {
            continue;
        }
        // In a user namespace of the test's own, where no other may be made.
        let script = format!(
            "echo 0 >/proc/sys/user/max_user_namespaces || exit 99; cd web; \
             {} exec --config ../tidegate.toml --jail -- touch ran",
            world.binary.display()
        );
        let outcome = user
            .program(&need("unshare"), world.home.path())
            .args(["-r", "bash", "-c", &script])
            .run();
        if outcome.code == Some(99) {
            eprintln!("NOT TESTED HERE: {:?}: {}", user, outcome.stderr);
            continue;
        }
        assert_eq!(outcome.code, Some(3), "{user:?}: {outcome:#?}");
        let outcome = outcome.showed("user.max_user_namespaces");
        outcome.showed("or run without --jail");
        assert!(!world.path("web/ran").exists(), "{user:?}: it was run");
    }
}
