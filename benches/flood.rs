//! What a flood of one caller costs another one.
//!
//! The gate (the program itself), its origin and all clients are on this machine. One caller asks
//! for an allowed page on connections of its own, quietly and then beside floods of another caller;
//! quiet and flooded rounds take turns, so that what else the machine does meets them alike. What
//! counts is the ratio: flooding clients use the same processors.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement has nothing to protect: it stops where something is wrong"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Quiet and flooded rounds of each flood.
const ROUNDS: usize = 5;
/// Requests of the measured caller in one round.
const REQUESTS: usize = 1000;
/// Clients that flood at once.
const FLOODERS: usize = 8;
/// How long at most a flood goes on before it is measured.
const WARM_UP: Duration = Duration::from_secs(15);
const HOST: &str = "files.example.com";

fn main() {
    // Run or listed as a test, it has nothing to say.
    if !std::env::args().any(|word| word == "--bench") {
        return;
    }
    let origin = origin();
    println!("{ROUNDS} rounds of {REQUESTS} requests, {FLOODERS} clients that flood");
    println!(
        "| flood | rates | quiet p50 | p99 | flooded p50 | p99 | ratio of p99, middle round | flood/s | 429/s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (rates, limits) in [("default", ""), ("off", OFF)] {
        let gate = Gate::start(origin, limits);
        for flood in [Flood::Refused, Flood::Kept, Flood::Sessions, Flood::Admin] {
            measure(&gate, origin, flood, rates);
        }
    }
}

/// As good as none.
const OFF: &str = "connection-rate = 1000000\nrefusal-rate = 1000000\nsession-rate = 1000000\n\
                   admin-rate = 1000000\n";

/// What the other caller does.
#[derive(Clone, Copy, Debug)]
enum Flood {
    /// Refused tunnels, each on a connection of its own.
    Refused,
    /// Refused requests on kept connections.
    Kept,
    /// Sessions that come from its session.
    Sessions,
    /// Calls without a credential.
    Admin,
}

fn measure(gate: &Gate, origin: SocketAddr, flood: Flood, rates: &str) {
    let (mut quiet, mut flooded) = (Vec::new(), Vec::new());
    let (mut asked, mut limited, mut took) = (0, 0, 0.0);
    let mut ratios = Vec::new();
    use_up(gate, flood);
    for _ in 0..ROUNDS {
        let calm = round(gate, origin);
        let flooding = Flooding::start(gate, flood);
        let began = Instant::now();
        let beside = round(gate, origin);
        took += began.elapsed().as_secs_f64();
        let (all, over) = flooding.stop();
        asked += all;
        limited += over;
        ratios.push(shares(beside.clone()).1 / shares(calm.clone()).1);
        quiet.extend(calm);
        flooded.extend(beside);
    }
    let (quiet, flooded) = (shares(quiet), shares(flooded));
    ratios.sort_by(f64::total_cmp);
    println!(
        "| {flood:?} | {rates} | {:.2} ms | {:.2} ms | {:.2} ms | {:.2} ms | {:.2} | {:.0} | {:.0} |",
        quiet.0,
        quiet.1,
        flooded.0,
        flooded.1,
        ratios[ROUNDS / 2],
        asked as f64 / took,
        limited as f64 / took,
    );
}

/// Floods until the caller is over its rate: what may come at once is used up.
fn use_up(gate: &Gate, flood: Flood) {
    let (flooding, began) = (Flooding::start(gate, flood), Instant::now());
    while flooding.counts.1.load(Ordering::Relaxed) == 0 && began.elapsed() < WARM_UP {
        thread::sleep(Duration::from_millis(50));
    }
    flooding.stop();
}

/// Milliseconds of the middle and of the slowest hundredth.
fn shares(mut all: Vec<Duration>) -> (f64, f64) {
    all.sort();
    let at = |share: usize| all[all.len() * share / 100].as_secs_f64() * 1e3;
    (at(50), at(99))
}

/// The measured caller: each request on a connection of its own, at its own listener.
fn round(gate: &Gate, origin: SocketAddr) -> Vec<Duration> {
    let port = origin.port();
    let ask = format!(
        "GET http://{HOST}:{port}/ HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n"
    );
    let one = |_| {
        let began = Instant::now();
        let answer = said(gate.proxies[1], &ask);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        began.elapsed()
    };
    (0..REQUESTS).map(one).collect()
}

fn said(to: SocketAddr, ask: &str) -> String {
    let mut stream = TcpStream::connect(to).expect("a connection");
    stream.write_all(ask.as_bytes()).expect("sent");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// Clients that flood until they are stopped.
struct Flooding {
    over: Arc<AtomicBool>,
    counts: Arc<(AtomicU64, AtomicU64)>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Flooding {
    fn start(gate: &Gate, flood: Flood) -> Self {
        let (over, counts) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let clients = (0..FLOODERS).map(|_| {
            let (over, counts) = (over.clone(), Arc::clone(&counts));
            let (proxy, admin, token) = (gate.proxies[0], gate.admin, gate.token.clone());
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    once(flood, (proxy, admin), &token, &over, &counts);
                }
            })
        });
        Self {
            clients: clients.collect(),
            over,
            counts,
        }
    }

    fn stop(self) -> (u64, u64) {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client");
        }
        let (all, limited) = &*self.counts;
        (all.load(Ordering::Relaxed), limited.load(Ordering::Relaxed))
    }
}

fn once(
    flood: Flood,
    (proxy, admin): (SocketAddr, SocketAddr),
    token: &str,
    over: &AtomicBool,
    counts: &(AtomicU64, AtomicU64),
) {
    let count = |answer: &str| {
        counts.0.fetch_add(1, Ordering::Relaxed);
        let limited = answer.starts_with("HTTP/1.1 429");
        counts.1.fetch_add(u64::from(limited), Ordering::Relaxed);
    };
    let post = |path: &str, more: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{more}\
             Content-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        )
    };
    match flood {
        Flood::Refused => count(&said(
            proxy,
            "CONNECT evil.example.org:443 HTTP/1.1\r\nHost: evil.example.org:443\r\n\r\n",
        )),
        Flood::Kept => {
            let mut stream = TcpStream::connect(proxy).expect("a connection");
            let ask = "GET http://evil.example.org/ HTTP/1.1\r\nHost: evil.example.org\r\n\r\n";
            let mut answer = [0; 4096];
            while !over.load(Ordering::Relaxed) {
                let sent = stream.write_all(ask.as_bytes());
                let Ok(read @ 1..) = sent.and_then(|()| stream.read(&mut answer)) else {
                    return;
                };
                count(&String::from_utf8_lossy(&answer[..read]));
            }
        }
        Flood::Sessions => {
            let bearer = format!("Authorization: Bearer {token}\r\n");
            count(&said(admin, &post("/v1/sessions", &bearer)));
        }
        Flood::Admin => count(&said(admin, &post("/v1/contained", ""))),
    }
}

/// Answers every connection with one page.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    let mut seen = Vec::new();
    let mut some = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut some) {
        seen.extend_from_slice(&some[..read]);
        if seen.ends_with(b"\r\n\r\n") {
            seen.clear();
            let page = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            if stream.write_all(page).is_err() {
                return;
            }
        }
    }
}

/// A running gate with a listener for each caller; it ends with this value.
struct Gate {
    child: Child,
    proxies: Vec<SocketAddr>,
    admin: SocketAddr,
    token: String,
    _folder: TempDir,
}

impl Gate {
    fn start(origin: SocketAddr, limits: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let config = format!(
            "[listen]\nproxy = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
             [record]\nfile = \"decisions.jsonl\"\n[dial]\nhosts = {{ \"{HOST}\" = [\"127.0.0.1\"] }}\n\
             [limits]\n{limits}\n[[rule]]\nid = \"files\"\nverdict = \"allow\"\n\
             to.hosts = [\"{HOST}\"]\n\
             to.ports = [{}]\ngrant.addresses = [\"127.0.0.0/8\"]\n",
            origin.port()
        );
        std::fs::write(folder.path().join("tidegate.toml"), config).expect("a file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["run", "--config", "tidegate.toml"])
            .env_clear()
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        let mut lines = BufReader::new(child.stderr.take().expect("a stderr")).lines();
        let (mut proxies, mut admin, mut all) = (Vec::new(), None, String::new());
        while let Some(Ok(line)) = lines.next() {
            let address = |text: &str| text.trim().parse().expect("an address");
            proxies.extend(line.strip_prefix("tidegate: proxy on ").map(address));
            admin = line
                .strip_prefix("tidegate: admin on ")
                .map(address)
                .or(admin);
            if line == "tidegate: ready" {
                break;
            }
            all = all + &line + "\n";
        }
        thread::spawn(move || lines.for_each(drop));
        let token = session(&folder);
        Self {
            child,
            proxies,
            admin: admin.expect(&all),
            token,
            _folder: folder,
        }
    }
}

/// The token of a session that the control socket starts.
fn session(folder: &TempDir) -> String {
    let socket = folder.path().join("control.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("a socket");
    let ask = "POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
               Content-Length: 2\r\nConnection: close\r\n\r\n{}";
    stream.write_all(ask.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (_, rest) = answer.split_once("\"token\":\"").expect("a token");
    rest.split('"').next().unwrap_or_default().to_owned()
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
