//! What the scenarios share: an authority, files, servers of other people, and one who asks.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType, SerialNumber};
use tempfile::TempDir;
use tidegate::clock::Clock;
use tidegate::config;
use tidegate::diag::Diagnostic;
use tidegate::name::{Host, Target};
use tidegate::policy::CallerKey;
use tidegate::tls::{Alpn, ClientStream, Entered, TlsFailure, Upstream, Upstreams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::kit::{DEADLINE, Pki, Visit, Wire, eventually, need};

pub(super) const HOST: &str = "internal.example";
/// What a gate shows and believes in most scenarios.
pub(super) const MTLS: &str =
    "client-cert = \"agent.pem\"\nclient-key = \"agent.key\"\nroots = [\"ca.pem\"]\n";

/// An authority, and the folder of a configuration.
pub(super) struct Bench {
    pub(super) pki: Pki,
    folder: TempDir,
}

impl Bench {
    /// With a certificate of our own (serial number 7) and one of a server.
    pub(super) fn new() -> Self {
        let bench = Self {
            pki: Pki::new(),
            folder: TempDir::new().expect("a folder"),
        };
        bench.pki.write(bench.folder());
        bench.agent(7, |_| ());
        let (cert, key) = bench.pki.issue(server);
        bench.write("server.pem", &cert);
        bench.write("server.key", &key);
        bench
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Writes a file that only its owner can read.
    pub(super) fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, mode).expect("a mode");
    }

    /// Issues the certificate of our own.
    pub(super) fn agent(&self, serial: u64, change: impl FnOnce(&mut CertificateParams)) {
        let (cert, key) = self.pki.issue(|params| {
            agent(params, serial);
            change(params);
        });
        self.write("agent.pem", &cert);
        self.write("agent.key", &key);
    }

    /// Runs a program of OpenSSL in the folder.
    pub(super) fn openssl(&self, words: &str) {
        let mut command = Command::new(need("openssl"));
        command.args(words.split(' ')).current_dir(self.folder());
        let outcome = command.output().expect("openssl");
        assert!(outcome.status.success(), "{words}: {outcome:?}");
    }

    /// Only its owner may read a key that OpenSSL wrote.
    pub(super) fn openssl_mode(&self, key: &str) {
        let name = format!("{key}.key");
        let text = std::fs::read_to_string(self.path(&name)).expect("a key");
        self.write(&name, &text);
    }

    /// What the gate makes of an `[upstream.internal]` with these lines.
    pub(super) fn build(&self, lines: &str) -> (Option<Upstreams>, Vec<Diagnostic>) {
        self.write("tidegate.toml", &format!("[upstream.internal]\n{lines}"));
        let (config, mut findings) = config::load(&self.path("tidegate.toml"));
        let Some(config) = config else {
            return (None, findings);
        };
        let (upstreams, more) = Upstreams::new(&config.upstreams, &Clock::system());
        findings.extend(more);
        (upstreams, findings)
    }

    /// As [`Self::build`], where all is well.
    #[track_caller]
    pub(super) fn built(&self, lines: &str) -> Upstreams {
        let (upstreams, findings) = self.build(lines);
        upstreams.unwrap_or_else(|| panic!("{findings:#?}"))
    }

    /// The upstream of these lines.
    #[track_caller]
    pub(super) fn upstream(&self, lines: &str) -> Arc<Upstream> {
        named(&self.built(lines))
    }
}

pub(super) fn named(upstreams: &Upstreams) -> Arc<Upstream> {
    upstreams.of(Some("internal")).expect("it is there").clone()
}

pub(super) fn server(params: &mut CertificateParams) {
    params.subject_alt_names = vec![SanType::DnsName(HOST.try_into().expect("a name"))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
}

fn agent(params: &mut CertificateParams, serial: u64) {
    let name = "spiffe://acme/gate".try_into().expect("ASCII");
    params.subject_alt_names = vec![SanType::URI(name)];
    params.serial_number = Some(SerialNumber::from(serial));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
}

/// A server of other people; it ends with the test.
pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// `openssl s_server`, which wants a certificate of our authority, with more words.
    pub(super) fn openssl(bench: &Bench, words: &str) -> Self {
        let usual = "s_server -accept 127.0.0.1:0 -cert server.pem -key server.key -CAfile ca.pem \
                     -www -verify_return_error";
        let mut command = Command::new(need("openssl"));
        command
            .args(usual.split_whitespace())
            .args(words.split(' '));
        let mut child = start(&mut command, bench.folder());
        let mut lines = BufReader::new(child.stdout.take().expect("a stdout")).lines();
        let mut ready = lines.by_ref().map_while(Result::ok);
        let address = ready.find_map(|line| line.strip_prefix("ACCEPT ")?.trim().parse().ok());
        thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            address: address.expect("an address"),
        }
    }

    /// nginx, with more lines for its server.
    pub(super) fn nginx(bench: &Bench, lines: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path temp-{name};"))
            .join("\n");
        let config = format!(
            "daemon off; master_process off; pid nginx.pid; error_log stderr;\nevents {{}}\n\
             http {{ access_log off;\n{temporary}\nserver {{ listen {address} ssl;\n\
             ssl_certificate server.pem; ssl_certificate_key server.key;\n{lines}\n\
             location / {{ return 200 \"hello\\n\"; }} }} }}\n"
        );
        bench.write("nginx.conf", &config);
        let mut command = Command::new(need("nginx"));
        command
            .args(["-e", "stderr", "-c", "nginx.conf", "-p"])
            .arg(bench.folder());
        let child = start(&mut command, bench.folder());
        eventually("nginx", || std::net::TcpStream::connect(address).ok());
        Self { child, address }
    }
}

fn start(command: &mut Command, folder: &Path) -> Child {
    command.current_dir(folder).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().expect("a server")
}

/// Runs until it is done, or too late.
pub(super) fn now<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let within = async { tokio::time::timeout(DEADLINE, work).await };
    runtime.block_on(within).expect("in time")
}

pub(super) type Stream = Box<ClientStream<TcpStream>>;

/// A handshake; the word of the failure where there is none.
pub(super) async fn enter(
    upstream: &Upstream,
    address: SocketAddr,
) -> Result<Stream, &'static str> {
    let entered = entered(upstream, Alpn::Http1, address).await;
    entered.map(|it| it.stream).map_err(|failure| failure.word)
}

/// As [`enter`], with all that is known.
pub(super) async fn entered(
    upstream: &Upstream,
    alpn: Alpn,
    address: SocketAddr,
) -> Result<Entered<TcpStream>, TlsFailure> {
    entered_as(upstream, alpn, address, Some("agent")).await
}

/// As [`entered`], for that caller.
pub(super) async fn entered_as(
    upstream: &Upstream,
    alpn: Alpn,
    address: SocketAddr,
    caller: Option<&str>,
) -> Result<Entered<TcpStream>, TlsFailure> {
    let socket = TcpStream::connect(address).await.expect("a connection");
    let target = Target {
        host: Host::parse(HOST.as_bytes()).expect("a name"),
        port: address.port(),
    };
    let caller = caller.map(|name| CallerKey::Subject(name.into()));
    upstream.enter(&target, caller.as_ref(), alpn, socket).await
}

/// A request with a body of that size, and the answer; the word of the failure where there is none.
pub(super) async fn say(stream: &mut Stream, size: usize) -> Result<String, &'static str> {
    let word = |error: std::io::Error| {
        TlsFailure::in_error(&error).map_or("network", |failure| failure.word)
    };
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
    );
    let head = if size == 0 {
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")
    } else {
        head
    };
    stream.write_all(head.as_bytes()).await.map_err(word)?;
    stream.write_all(&vec![b'x'; size]).await.map_err(word)?;
    stream.flush().await.map_err(word)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer).await {
        // OpenSSL ends without saying so.
        Err(error) if answer.is_empty() => Err(word(error)),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// A handshake and a request; the word of the failure where there is none.
pub(super) fn ask(upstream: &Upstream, address: SocketAddr) -> Result<String, &'static str> {
    now(async {
        let mut stream = enter(upstream, address).await?;
        say(&mut stream, 0).await
    })
}

/// The serial number of the certificate that a client showed, where it is a small one.
pub(super) fn serial_shown(visit: &Visit) -> u64 {
    let Wire::TlsServer(stream) = &visit.wire else {
        panic!("no TLS")
    };
    let shown = stream.conn.peer_certificates().expect("certificates");
    let (_, leaf) = X509Certificate::from_der(&shown[0]).expect("a certificate");
    leaf.serial.to_u64_digits()[0]
}
