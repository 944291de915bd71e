//! A server of `PostgreSQL` of one test: a cluster of its own on loopback, with TLS and SCRAM. Root
//! starts it as another user, since the server refuses root.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

/// `nobody`: the user of the server where the tests run as root.
const USER: u32 = 65_534;
/// How long the server may take to start or stop.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running server.
pub(crate) struct Postgres {
    folder: TempDir,
    port: u16,
    server: Option<Child>,
}

/// The password of the role `gate`.
pub(crate) const PASSWORD: &str = "correct horse";

impl Postgres {
    /// Makes a cluster with a role `gate`, which owns the database `fleet`, and a role `narrow`; starts
    /// the server.
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        let is_root = geteuid().is_root();
        if is_root {
            chown(folder.path(), Some(USER), Some(USER)).expect("a folder of another user");
        }
        let mut postgres = Self {
            port: free_port(),
            folder,
            server: None,
        };
        postgres.make();
        postgres.run();
        postgres
    }

    /// The URL for `[ledger]`.
    pub(crate) fn url(&self) -> String {
        format!("postgres://gate@127.0.0.1:{}/fleet", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the Unix socket.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The certificate that the server shows, as PEM: it signed itself.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("server.crt")
    }

    /// SIGKILL to the server. Its own processes end when they find that out.
    pub(crate) fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Starts the server again, with the same files.
    pub(crate) fn run(&mut self) {
        let begun = now();
        loop {
            let mut server = self.command("postgres");
            server
                .arg("-D")
                .arg(self.data())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            self.server = Some(server.spawn().expect("a server"));
            if self.answers() {
                return;
            }
            // Processes of a server that was killed may still have its memory.
            self.end(Signal::KILL);
            assert!(begun.elapsed() < PATIENCE, "the server does not start");
        }
    }

    /// Whether the server takes connections, once it does or has ended.
    fn answers(&mut self) -> bool {
        let begun = now();
        while begun.elapsed() < PATIENCE {
            let server = self.server.as_mut().expect("a server");
            if server.try_wait().expect("a child").is_some() {
                return false;
            }
            let is_ready = self
                .command("pg_isready")
                .args(["-q", "-h"])
                .arg(self.folder.path())
                .args(["-p", &self.port.to_string()])
                .status();
            if is_ready.expect("pg_isready").success() {
                return true;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        false
    }

    /// Runs SQL as the superuser.
    pub(crate) fn sql(&self, sql: &str) {
        let done = self
            .command("psql")
            .env("PGPASSWORD", PASSWORD)
            .args([
                "-q",
                "-X",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "owner",
                "-d",
                "fleet",
                "-h",
            ])
            .arg(self.folder.path())
            .args(["-p", &self.port.to_string(), "-c", sql])
            .output()
            .expect("psql");
        assert!(done.status.success(), "{sql}: {done:?}");
    }

    fn make(&self) {
        let (folder, data) = (self.folder.path(), self.data());
        let word = folder.join("password");
        std::fs::write(&word, PASSWORD).expect("a file");
        let initdb = self
            .command("initdb")
            .arg("-D")
            .arg(&data)
            .args(["-U", "owner", "--no-sync", "--no-locale", "-E", "UTF8"])
            .arg("--auth=scram-sha-256")
            .arg(format!("--pwfile={}", word.display()))
            .output()
            .expect("initdb, of the package postgresql");
        assert!(initdb.status.success(), "{initdb:?}");

        let key = KeyPair::generate().expect("a key");
        let names = vec!["127.0.0.1".to_owned(), "db.example.net".to_owned()];
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(self.certificate(), certificate.pem()).expect("a file");
        let private = folder.join("server.key");
        std::fs::write(&private, key.serialize_pem()).expect("a file");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&private, mode).expect("a mode");
        if geteuid().is_root() {
            chown(&private, Some(USER), Some(USER)).expect("a file of another user");
        }
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\n\
             ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\n\
             fsync = off\nshared_buffers = '16MB'\nmax_connections = 40\n",
            self.port,
            folder.display(),
            self.certificate().display(),
            private.display()
        );
        std::fs::write(data.join("postgresql.auto.conf"), settings).expect("a file");
        let entries = "local all all scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(data.join("pg_hba.conf"), entries).expect("a file");
        self.single(&format!(
            "CREATE ROLE gate LOGIN PASSWORD '{PASSWORD}'\n\
             CREATE ROLE narrow LOGIN PASSWORD '{PASSWORD}'\n\
             CREATE DATABASE fleet OWNER gate\n"
        ));
    }

    /// Runs statements, one a line, without a server.
    fn single(&self, sql: &str) {
        use std::io::Write as _;
        let mut single = self
            .command("postgres")
            .args(["--single", "-D"])
            .arg(self.data())
            .arg("postgres")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("postgres");
        let mut input = single.stdin.take().expect("its input");
        input.write_all(sql.as_bytes()).expect("written");
        drop(input);
        assert!(single.wait().expect("a child").success());
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A program of the server's package, as a user that the server takes.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(path_of(program));
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C");
        if geteuid().is_root() {
            command.uid(USER).gid(USER);
        }
        command
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut server) = self.server.take() {
            let id = i32::try_from(server.id()).ok().and_then(Pid::from_raw);
            let _ = kill_process(id.expect("a process"), signal);
            server.wait().expect("a child");
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end(Signal::QUIT);
    }
}

/// Debian keeps the programs out of `PATH`.
fn path_of(program: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let folders = versions.flatten().map(|version| version.path().join("bin"));
    let places = folders.chain(["/usr/local/bin", "/usr/bin"].map(PathBuf::from));
    let mut found = places.map(|folder| folder.join(program));
    found
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("no {program}: install the package postgresql"))
}

/// A port that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

#[expect(
    clippy::disallowed_methods,
    reason = "real time passes while a server starts"
)]
fn now() -> Instant {
    Instant::now()
}
