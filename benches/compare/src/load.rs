//! The client: one process, one thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::figures::Mode;
use crate::{cpu, tls};

/// How many ask at the same time.
const CLIENTS: usize = 50;
const BULK_STREAMS: usize = 4;
/// What is not measured, until connections and caches are warm.
const WARM_UP: Duration = Duration::from_millis(500);
/// Requests of each client before those that are counted.
const WARM_UPS: u32 = 4;
const PACE: Duration = Duration::from_millis(20);
const FEW_TUNNELS: usize = 1_000;
/// One caller alone has two thirds of what tidegate may dial with 20,000 descriptors.
const MANY_TUNNELS: usize = 6_000;
/// How long a proxy may take to free memory, before it is looked at.
const TIME_TO_SETTLE: Duration = Duration::from_secs(3);
/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(20);

type Figures = BTreeMap<&'static str, f64>;

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// What to measure.
#[derive(clap::Args)]
pub struct Options {
    mode: Mode,
    /// The proxy
    #[arg(long)]
    proxy: SocketAddr,
    /// The process of the proxy
    #[arg(long)]
    pid: u32,
    #[arg(long)]
    seconds: f64,
    /// The host and port that tunnels are asked for, if not those of the mode
    #[arg(long)]
    authority: Option<String>,
    /// Ask so often in all, in turns with the program that counts
    #[arg(long)]
    operations: Option<u32>,
    /// How many turns of so many operations
    #[arg(long, default_value_t = 1)]
    turns: u32,
    /// How many ask at the same time, where operations are given
    #[arg(long, default_value_t = CLIENTS)]
    clients: usize,
}

/// Measures and prints the figures as JSON. This process looks at the proxy itself, at the moment: it
/// has priority, and the suite may have to wait for other work on the machine.
pub async fn run(options: Options) -> Result<()> {
    if let Some(operations) = options.operations {
        return counted(&options, operations).await;
    }
    let seconds = Duration::from_secs_f64(options.seconds);
    let Options {
        mode, proxy, pid, ..
    } = options;
    let figures = match mode {
        Mode::Bulk | Mode::TlsBulk => bulk(mode, proxy, pid, seconds).await?,
        Mode::Idle => idle(proxy, pid).await?,
        Mode::Latency => latency(proxy, seconds).await?,
        _ => requests(&options, seconds).await?,
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

/// As many requests as can be made.
async fn requests(options: &Options, seconds: Duration) -> Result<Figures> {
    let pid = options.pid;
    let (times, failed) = (
        Rc::new(RefCell::new(Vec::new())),
        Rc::new(RefCell::new(Vec::new())),
    );
    let begin = Instant::now() + WARM_UP;
    for _ in 0..CLIENTS {
        let (times, failed) = (times.clone(), failed.clone());
        let client = Client::new(options.mode, options.proxy);
        let mut client = match &options.authority {
            Some(authority) => client.to(authority.clone()),
            None => client,
        };
        tokio::task::spawn_local(async move {
            loop {
                let asked = Instant::now();
                match tokio::time::timeout(DEADLINE, client.ask()).await {
                    Ok(Ok(())) if asked >= begin => times.borrow_mut().push(asked.elapsed()),
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        client.kept = None;
                        failed.borrow_mut().push(format!("{error:#}"));
                        tokio::time::sleep(PACE).await;
                    }
                    Err(_) => failed.borrow_mut().push("no answer".to_owned()),
                }
            }
        });
    }
    tokio::time::sleep_until(begin.into()).await;
    let (spent, before) = (cpu::spent(pid), times.borrow().len());
    let begin = Instant::now();
    tokio::time::sleep(seconds).await;
    let (took, spent) = (
        begin.elapsed(),
        cpu::spent(pid).saturating_sub(spent).as_secs_f64(),
    );
    let (mut times, failed) = (times.take().split_off(before), failed.take());
    ensure!(
        failed.len() * 100 <= times.len(),
        "{} of {} requests failed: {}",
        failed.len(),
        times.len(),
        failed.first().map_or("", |it| it.as_str())
    );
    Ok(BTreeMap::from([
        ("operations", times.len() as f64),
        ("failed", failed.len() as f64),
        ("cpu_s", spent),
        ("per_s", times.len() as f64 / took.as_secs_f64()),
        ("per_cpu_s", times.len() as f64 / spent),
        ("p50_us", percentile(&mut times, 0.5)),
        ("p99_us", percentile(&mut times, 0.99)),
    ]))
}

/// So many requests in each turn. Says `warm` when each client was answered, and `done` when all of a
/// turn were; after each it waits for a line.
async fn counted(options: &Options, operations: u32) -> Result<()> {
    let mut clients: Vec<Client> = (0..options.clients)
        .map(|_| Client::new(options.mode, options.proxy))
        .collect();
    let warm_ups = options.clients as u32 * WARM_UPS;
    let turns = (0..options.turns).map(|_| ("done", operations));
    for (word, count) in std::iter::once(("warm", warm_ups)).chain(turns) {
        let left = Rc::new(Cell::new(count));
        let mut asking = tokio::task::JoinSet::new();
        for mut client in clients.drain(..) {
            let left = left.clone();
            asking.spawn_local(async move {
                while let Some(fewer) = left.get().checked_sub(1) {
                    left.set(fewer);
                    client.ask_in_time().await?;
                }
                anyhow::Ok(client)
            });
        }
        while let Some(client) = asking.join_next().await {
            clients.push(client??);
        }
        println!("{word}");
        std::io::stdin().read_line(&mut String::new())?;
    }
    Ok(())
}

/// In microseconds; 0 of no times.
pub fn percentile(times: &mut [Duration], share: f64) -> f64 {
    times.sort();
    let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
    times.get(index).map_or(0.0, |it| it.as_secs_f64() * 1e6)
}

/// As many bytes as come.
async fn bulk(mode: Mode, proxy: SocketAddr, pid: u32, seconds: Duration) -> Result<Figures> {
    let bytes = Rc::new(Cell::new(0_u64));
    for _ in 0..BULK_STREAMS {
        let mut stream = Client::new(mode, proxy).open().await?;
        stream.write_all(request("/bulk").as_bytes()).await?;
        stream.flush().await?;
        let bytes = bytes.clone();
        tokio::task::spawn_local(async move {
            let mut buffer = vec![0; 256 << 10];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                bytes.set(bytes.get() + count as u64);
            }
        });
    }
    tokio::time::sleep(WARM_UP).await;
    let (spent, before) = (cpu::spent(pid), bytes.get());
    let begin = Instant::now();
    tokio::time::sleep(seconds).await;
    let (took, spent) = (
        begin.elapsed(),
        cpu::spent(pid).saturating_sub(spent).as_secs_f64(),
    );
    let gib = (bytes.get() - before) as f64 / f64::from(1 << 30);
    ensure!(gib > 0.0, "no bytes came");
    Ok(BTreeMap::from([
        ("gib", gib),
        ("cpu_s", spent),
        ("cpu_s_per_gib", spent / gib),
        ("gbit_per_s", gib * 8.589_934_592 / took.as_secs_f64()),
    ]))
}

/// Opens few, then many tunnels, then closes them, and looks at the memory of the proxy after each step.
async fn idle(proxy: SocketAddr, pid: u32) -> Result<Figures> {
    let mut tunnels = Vec::new();
    let mut memory = Vec::new();
    for count in [FEW_TUNNELS, MANY_TUNNELS] {
        while tunnels.len() < count {
            let mut client = Client::new(Mode::Tunnel, proxy);
            client.ask_in_time().await?;
            tunnels.push(client);
        }
        tokio::time::sleep(TIME_TO_SETTLE).await;
        memory.push(cpu::resident(pid) as f64);
    }
    tunnels.clear();
    tokio::time::sleep(TIME_TO_SETTLE).await;
    memory.push(cpu::resident(pid) as f64);
    let [few, many, closed] = memory[..] else {
        bail!("three steps")
    };
    let tunnels = (MANY_TUNNELS - FEW_TUNNELS) as f64;
    Ok(BTreeMap::from([
        ("tunnels", tunnels),
        ("bytes_per_tunnel", (many - few) / tunnels),
        ("kept_bytes_per_tunnel", ((closed - few) / tunnels).max(0.0)),
    ]))
}

/// One request at a time.
async fn latency(proxy: SocketAddr, seconds: Duration) -> Result<Figures> {
    let mut figures = Figures::new();
    for (mode, key) in [
        (Mode::Connect, "new_us"),
        (Mode::Tunnel, "kept_us"),
        (Mode::Http, "http_us"),
    ] {
        let mut client = Client::new(mode, proxy);
        let mut times = Vec::new();
        // Peers that have no such mode leave its figure out.
        if client.ask().await.is_err() {
            continue;
        }
        let mut tick = tokio::time::interval(PACE);
        let end = Instant::now() + seconds;
        while Instant::now() < end {
            tick.tick().await;
            let asked = Instant::now();
            client.ask_in_time().await?;
            times.push(asked.elapsed());
        }
        figures.insert(key, percentile(&mut times, 0.5));
    }
    Ok(figures)
}

/// A balancer in front of a proxy.
pub struct Balanced {
    /// The address and port that it connects from.
    pub from: SocketAddr,
    /// What it says of the client: a header of the PROXY protocol.
    pub header: String,
}

/// One client of a proxy.
pub struct Client {
    mode: Mode,
    proxy: SocketAddr,
    through: Option<Balanced>,
    /// The host and port of CONNECT, if not those of the mode.
    authority: Option<String>,
    kept: Option<Box<dyn Stream>>,
}

impl Client {
    pub fn new(mode: Mode, proxy: SocketAddr) -> Self {
        Self {
            mode,
            proxy,
            through: None,
            authority: None,
            kept: None,
        }
    }

    /// Asks for tunnels to `authority`.
    pub fn to(self, authority: String) -> Self {
        Self {
            authority: Some(authority),
            ..self
        }
    }

    /// Connects as a balancer does.
    pub fn through(self, balancer: Balanced) -> Self {
        Self {
            through: Some(balancer),
            ..self
        }
    }

    /// One request, answered in time.
    pub async fn ask_in_time(&mut self) -> Result<()> {
        tokio::time::timeout(DEADLINE, self.ask())
            .await
            .context("no answer")?
    }

    /// One request, answered.
    async fn ask(&mut self) -> Result<()> {
        let keeps = matches!(self.mode, Mode::Http | Mode::Tunnel | Mode::TlsHttp);
        // A proxy may close a kept connection at any time: then the request is made on a new one.
        if let Some(mut kept) = self.kept.take()
            && exchange(&mut kept, self.line()).await.is_ok()
        {
            self.kept = Some(kept);
            return Ok(());
        }
        let mut stream = self.open().await?;
        exchange(&mut stream, self.line()).await?;
        self.kept = keeps.then_some(stream);
        Ok(())
    }

    fn line(&self) -> &'static str {
        match self.mode {
            Mode::Http => "http://127.0.0.1:18000/",
            _ => "/",
        }
    }

    async fn connect(&self) -> Result<TcpStream> {
        let Some(Balanced { from, header }) = &self.through else {
            return Ok(TcpStream::connect(self.proxy).await?);
        };
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(*from)?;
        let mut stream = socket.connect(self.proxy).await?;
        stream.write_all(header.as_bytes()).await?;
        Ok(stream)
    }

    /// A connection on which requests can be made.
    async fn open(&self) -> Result<Box<dyn Stream>> {
        let is_tls = matches!(self.mode, Mode::TlsConnect | Mode::TlsHttp | Mode::TlsBulk);
        let mut stream = self.connect().await?;
        stream.set_nodelay(true)?;
        if self.mode != Mode::Http {
            let usual = if is_tls {
                "localhost:18001"
            } else {
                "127.0.0.1:18000"
            };
            let authority = self.authority.as_deref().unwrap_or(usual);
            let head = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let answer = read_until(&mut stream, b"\r\n\r\n").await?;
            ensure!(
                answer.get(8..12) == Some(b" 200"),
                "CONNECT: {}",
                String::from_utf8_lossy(&answer)
            );
        }
        if is_tls {
            return Ok(Box::new(
                tls::connector().connect(tls::localhost(), stream).await?,
            ));
        }
        Ok(Box::new(stream))
    }
}

fn request(target: &str) -> String {
    let host = if target.starts_with("http:") {
        "127.0.0.1:18000"
    } else {
        "localhost:18001"
    };
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: compare\r\nAccept: */*\r\n\r\n")
}

async fn exchange(stream: &mut Box<dyn Stream>, target: &str) -> Result<()> {
    stream.write_all(request(target).as_bytes()).await?;
    stream.flush().await?;
    let answer = read_until(stream, b"\r\n\r\nok").await?;
    ensure!(
        answer.get(8..12) == Some(b" 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}

async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &[u8]) -> Result<Vec<u8>> {
    let mut answer = Vec::with_capacity(1024);
    while !answer.ends_with(end) {
        if stream.read_buf(&mut answer).await? == 0 {
            bail!("closed after {:?}", String::from_utf8_lossy(&answer));
        }
        ensure!(answer.len() < 64 << 10, "the answer is too long");
        let is_refused = answer.len() > 12 && answer.get(9) != Some(&b'2');
        ensure!(!is_refused, "{}", String::from_utf8_lossy(&answer));
    }
    Ok(answer)
}
