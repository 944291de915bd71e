//! Runs each peer in each mode, in turns: A B C A B C.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;

use crate::figures::{Machine, Mode, Results, Run};
use crate::peer::{Peer, Peers, Places};
use crate::program::{CLIENT_CPU, PROXY_CPU, Program, Starter};
use crate::{certificates, draw as picture, origin, table};

const TIME_TO_LISTEN: Duration = Duration::from_secs(20);

/// What is compared: the options that all measurements share.
#[derive(clap::Args)]
pub struct Compared {
    /// The list of peers; configurations lie beside it
    #[arg(long, default_value = "benches/compare/peers.toml")]
    peers: PathBuf,
    /// The program that is measured
    #[arg(long, default_value = "target/release/tidegate")]
    tidegate: PathBuf,
}

/// What to measure.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    compared: Compared,
    /// Where figures, table and picture go
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
    /// Only these peers
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these modes
    #[arg(long, value_delimiter = ',')]
    modes: Vec<Mode>,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// The name of the files in `results`; the date if not given
    #[arg(long)]
    name: Option<String>,
}

/// Measures and draws.
pub fn run(options: &Options) -> Result<()> {
    let suite = Suite {
        options,
        bench: Bench::new(&options.compared)?,
    };
    let measured = suite.all();
    suite.bench.clean()?;
    let results = measured?;
    let name = options
        .name
        .clone()
        .unwrap_or_else(|| results.machine.date.clone());
    fs::create_dir_all(&options.results)?;
    let file = options.results.join(format!("{name}.json"));
    fs::write(&file, serde_json::to_string_pretty(&results)? + "\n")?;
    draw(&file)
}

/// Draws the table and the picture beside a file of figures.
pub fn draw(file: &Path) -> Result<()> {
    let results: Results = serde_json::from_str(&fs::read_to_string(file)?)?;
    fs::write(file.with_extension("md"), table::markdown(&results))?;
    fs::write(file.with_extension("svg"), picture::svg(&results))?;
    println!("{}", file.with_extension("md").display());
    println!("{}", file.with_extension("svg").display());
    Ok(())
}

/// Where programs run that are measured, and how they are started.
pub struct Bench {
    pub places: Places,
    /// Holds the scratch folder of the peer that runs, and what all share.
    root: PathBuf,
    /// The list of peers.
    list: PathBuf,
    /// The folder of that list.
    pub folder: PathBuf,
    pub starter: Starter,
    /// The processor of origin and client.
    client_cpu: &'static str,
    /// The processor of the proxy.
    proxy_cpu: &'static str,
}

impl Bench {
    /// The proxy has a processor alone.
    pub fn new(compared: &Compared) -> Result<Self> {
        let Compared {
            peers: list,
            tidegate,
        } = compared;
        let root = std::env::temp_dir().join(format!("tidegate-compare-{}", std::process::id()));
        fs::create_dir_all(&root)?;
        let compare = std::env::current_exe()?;
        let places = Places {
            scratch: root.join("scratch"),
            certificates: root.join("certificates"),
            built: compare.parent().context("no folder")?.to_path_buf(),
            tidegate: tidegate.canonicalize().context("build tidegate first")?,
            compare,
        };
        certificates::make(&places.certificates)?;
        Ok(Self {
            places,
            root,
            list: list.clone(),
            folder: list.parent().context("no folder")?.to_path_buf(),
            starter: Starter::new(),
            client_cpu: CLIENT_CPU,
            proxy_cpu: PROXY_CPU,
        })
    }

    /// All share one processor, and none interrupts another.
    pub fn on_one_processor(self) -> Self {
        Self {
            client_cpu: PROXY_CPU,
            starter: self.starter.without_interruption(),
            ..self
        }
    }

    pub fn peers(&self) -> Result<Vec<Peer>> {
        Ok(Peers::read(&self.list)?.peer)
    }

    /// Starts the server that requests are for.
    pub fn origin(&self) -> Result<Program> {
        self.origin_on(self.client_cpu)
    }

    /// The same, on another processor than that of the client.
    pub fn origin_on(&self, cpu: &str) -> Result<Program> {
        let arguments = [
            self.places.compare.as_os_str(),
            "origin".as_ref(),
            self.places.certificates.as_os_str(),
        ];
        let log = self.root.join("origin.log");
        for address in [origin::PLAIN, origin::RESTING, origin::TLS] {
            is_free(address)?;
        }
        let origin = self.starter.start(cpu, &arguments, &log)?;
        listens(origin::TLS, &log)?;
        Ok(origin)
    }

    /// Starts a proxy that is going to listen at `address`, with its output in `log`.
    pub fn start_proxy(
        &self,
        command: &[String],
        address: SocketAddr,
        log: &Path,
    ) -> Result<Program> {
        is_free(address)?;
        self.starter.start(self.proxy_cpu, command, log)
    }

    /// Starts the client, with its output to be read.
    pub fn start_client<S: AsRef<OsStr>>(&self, arguments: &[S], input: Stdio) -> Result<Program> {
        self.starter.ask(self.client_cpu, arguments, input)
    }

    /// Gives a peer an empty scratch folder and the files that its command names; returns the command.
    ///
    /// Nothing of an earlier run is there: a gate that starts with a log of a gigabyte reads the log
    /// first, while clients wait.
    pub fn prepare(&self, peer: &Peer) -> Result<Vec<String>> {
        self.empty_scratch()?;
        peer.prepare(&self.folder, &self.places)
    }

    /// Empties the scratch folder.
    pub fn empty_scratch(&self) -> Result<()> {
        if self.places.scratch.exists() {
            fs::remove_dir_all(&self.places.scratch)?;
        }
        Ok(fs::create_dir(&self.places.scratch)?)
    }

    /// Where the output of the peer that runs goes.
    pub fn log(&self, peer: &Peer) -> PathBuf {
        self.places.scratch.join(format!("{}.log", peer.name))
    }

    pub fn clean(&self) -> Result<()> {
        Ok(fs::remove_dir_all(&self.root)?)
    }
}

struct Suite<'a> {
    options: &'a Options,
    bench: Bench,
}

impl Suite<'_> {
    fn all(&self) -> Result<Results> {
        let peers = self.installed()?;
        let mut machine = self.machine(&peers)?;
        let _origin = self.bench.origin()?;
        let modes = if self.options.modes.is_empty() {
            Mode::value_variants()
        } else {
            &self.options.modes
        };
        let mut runs = Vec::new();
        for mode in modes {
            for round in 1..=self.options.rounds {
                for peer in peers.iter().filter(|peer| peer.modes.contains(mode)) {
                    match self.one(peer, *mode) {
                        Ok(figures) => {
                            println!("{mode:?} {round} {}: {figures:.1?}", peer.name);
                            runs.push(Run {
                                mode: *mode,
                                peer: peer.name.clone(),
                                round,
                                figures,
                            });
                        }
                        Err(error) => {
                            println!("{mode:?} {round} {}: NOT MEASURED: {error:#}", peer.name)
                        }
                    }
                    std::io::stdout().flush()?;
                }
            }
        }
        machine.load.push(load_average());
        ensure!(!runs.is_empty(), "nothing was measured");
        Ok(Results { machine, runs })
    }

    fn installed(&self) -> Result<Vec<Peer>> {
        let all = self.bench.peers()?;
        let wanted = all
            .into_iter()
            .filter(|it| self.options.only.is_empty() || self.options.only.contains(&it.name));
        let (here, missing): (Vec<_>, Vec<_>) =
            wanted.partition(|it| it.is_installed(&self.bench.places));
        for peer in missing {
            println!("not installed: {}", peer.name);
        }
        Ok(here)
    }

    fn machine(&self, peers: &[Peer]) -> Result<Machine> {
        let mut configurations = BTreeMap::new();
        peers
            .iter()
            .for_each(|peer| peer.digests(&self.bench.folder, &mut configurations));
        Ok(Machine {
            date: said(&["date", "+%Y-%m-%d"])?,
            processor: processor()?,
            processors: std::thread::available_parallelism()?.get(),
            kernel: said(&["uname", "-sr"])?,
            load: vec![load_average()],
            rounds: self.options.rounds,
            seconds: self.options.seconds,
            versions: peers
                .iter()
                .map(|it| (it.name.clone(), it.version(&self.bench.places)))
                .collect(),
            configurations,
        })
    }

    /// One peer, started anew, in one mode.
    fn one(&self, peer: &Peer, mode: Mode) -> Result<BTreeMap<String, f64>> {
        let command = self.bench.prepare(peer)?;
        let log = self.bench.log(peer);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, peer.port));
        let proxy = self.bench.start_proxy(&command, address, &log)?;
        listens(address, &log)?;
        let this = self.bench.places.compare.as_path();
        let _spinners = if mode == Mode::Latency {
            vec![
                Starter::spin(CLIENT_CPU, this)?,
                Starter::spin(PROXY_CPU, this)?,
            ]
        } else {
            Vec::new()
        };
        let mode_name = mode.name();
        let (pid, seconds) = (proxy.id().to_string(), self.options.seconds.to_string());
        let address_text = address.to_string();
        let options = [
            "load",
            &mode_name,
            "--proxy",
            &address_text,
            "--pid",
            &pid,
            "--seconds",
            &seconds,
        ];
        let arguments: Vec<&OsStr> = std::iter::once(this.as_os_str())
            .chain(options.map(OsStr::new))
            .collect();
        let mut load = self.bench.start_client(&arguments, Stdio::null())?;
        let mut said = String::new();
        load.child
            .stdout
            .take()
            .context("no output")?
            .read_to_string(&mut said)?;
        wait_closed(proxy, address);
        serde_json::from_str(&said).context("the client ended without figures")
    }
}

/// Otherwise what another program does would be measured.
pub fn is_free(address: SocketAddr) -> Result<()> {
    ensure!(
        TcpStream::connect(address).is_err(),
        "another program listens at {address}: is this running twice?"
    );
    Ok(())
}

/// Waits until a program listens.
pub fn listens(address: SocketAddr, log: &Path) -> Result<()> {
    let end = Instant::now() + TIME_TO_LISTEN;
    while TcpStream::connect(address).is_err() {
        let said = fs::read_to_string(log).unwrap_or_default();
        ensure!(Instant::now() < end, "{address} does not answer: {said}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Ends a proxy and waits until the next can have its port.
pub fn wait_closed(proxy: Program, address: SocketAddr) {
    drop(proxy);
    let end = Instant::now() + TIME_TO_LISTEN;
    while TcpStream::connect(address).is_ok() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a command writes.
pub fn said(words: &[&str]) -> Result<String> {
    let (program, arguments) = words.split_first().context("no program")?;
    let output = Command::new(program).args(arguments).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The name of this machine's processor.
pub fn processor() -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let processor = processors
        .lines()
        .find_map(|it| it.strip_prefix("model name")?.split_once(": "));
    Ok(processor.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned()))
}

/// Of the last minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|it| it.parse().ok())
        .unwrap_or_default()
}
