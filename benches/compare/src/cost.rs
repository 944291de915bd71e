//! What one operation costs tidegate: instructions of its own code, and calls of the kernel.
//!
//! Counts vary less than times do: they can be taken on a machine with other work. Instructions are
//! counted by callgrind, system calls by perf, in two runs of the program.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum as _;

use crate::figures::Mode;
use crate::peer::Peer;
use crate::program::{CLIENT_CPU, PROXY_CPU, Program};
use crate::suite::{Bench, Compared, listens, wait_closed};

/// Under callgrind a program takes long to listen, and to end.
const TIME_TO_LISTEN: Duration = Duration::from_secs(60);
/// Operations that are counted, and as many for each client before.
const OPERATIONS: u32 = 5_000;
const MODES: [Mode; 4] = [Mode::Connect, Mode::Http, Mode::Tunnel, Mode::TlsHttp];

/// What to count.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    compared: Compared,
    /// The peer of the list
    #[arg(long, default_value = "tidegate")]
    peer: String,
    /// Only these modes
    #[arg(long, value_delimiter = ',')]
    modes: Vec<Mode>,
    #[arg(long, default_value_t = OPERATIONS)]
    operations: u32,
    /// Keep what callgrind wrote in this folder, for callgrind_annotate
    #[arg(long)]
    keep: Option<PathBuf>,
}

/// Counts, and prints a table.
pub fn run(options: &Options) -> Result<()> {
    let bench = Bench::new(&options.compared)?;
    let counted = all(options, &bench);
    bench.clean()?;
    counted
}

fn all(options: &Options, bench: &Bench) -> Result<()> {
    let _origin = bench.origin()?;
    let modes = if options.modes.is_empty() {
        &MODES[..]
    } else {
        &options.modes
    };
    println!("| mode | instructions an operation | system calls an operation |\n|---|---|---|");
    for mode in modes {
        let peers = bench.peers()?;
        let peer = peers
            .iter()
            .find(|it| it.name == options.peer && it.modes.contains(mode))
            .context("the list has no such peer with this mode")?;
        let count = Count {
            options,
            bench,
            peer,
            mode: *mode,
        };
        let (instructions, calls) = (count.instructions()?, count.calls()?);
        let name = name(*mode)?;
        println!("| {name} | {instructions:.0} | {calls:.2} |");
        std::io::stdout().flush()?;
    }
    Ok(())
}

struct Count<'a> {
    options: &'a Options,
    bench: &'a Bench,
    peer: &'a Peer,
    mode: Mode,
}

impl Count<'_> {
    fn instructions(&self) -> Result<f64> {
        let prepared = self.bench.prepare(self.peer)?;
        let out = self.bench.places.scratch.join("callgrind.out");
        let mut command: Vec<String> = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
            .map(str::to_owned)
            .into();
        command.push(format!("--callgrind-out-file={}", out.display()));
        command.extend(prepared);
        let (proxy, address) = self.start(&command)?;
        let mut client = self.client(&proxy, address)?;
        let pid = proxy.id().to_string();
        client.warm()?;
        control(&["-i", "on", &pid])?;
        client.go()?;
        control(&["-i", "off", &pid])?;
        control(&["-d", &pid])?;
        client.end();
        wait_closed(proxy, address);
        let written = dump(&out)?;
        if let Some(folder) = &self.options.keep {
            fs::create_dir_all(folder)?;
            fs::copy(&written, folder.join(name(self.mode)?))?;
        }
        let total = total(&fs::read_to_string(&written)?)?;
        fs::remove_file(&written)?;
        Ok(total / f64::from(self.options.operations))
    }

    fn calls(&self) -> Result<f64> {
        let command = self.bench.prepare(self.peer)?;
        let (proxy, address) = self.start(&command)?;
        let mut client = self.client(&proxy, address)?;
        client.warm()?;
        let out = self.bench.places.scratch.join("perf.out");
        let mut perf = Command::new("perf")
            .args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p"])
            .arg(proxy.id().to_string())
            .arg("-o")
            .arg(&out)
            .spawn()
            .context("perf is needed to count system calls")?;
        // It has no way to say that it counts.
        std::thread::sleep(Duration::from_millis(500));
        client.go()?;
        let stop = Command::new("kill")
            .args(["-INT", &perf.id().to_string()])
            .status();
        ensure!(stop?.success(), "cannot end perf");
        perf.wait()?;
        client.end();
        wait_closed(proxy, address);
        let text = fs::read_to_string(&out)?;
        let line = text.lines().find(|it| it.contains("sys_enter"));
        let calls = line.and_then(|it| it.split(',').next()?.parse::<f64>().ok());
        Ok(calls.context("perf counted nothing")? / f64::from(self.options.operations))
    }

    fn start(&self, command: &[String]) -> Result<(Program, SocketAddr)> {
        let log = self.bench.log(self.peer);
        let proxy = self.bench.starter.start(PROXY_CPU, command, &log)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.peer.port));
        let end = Instant::now() + TIME_TO_LISTEN;
        while TcpStream::connect(address).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100));
        }
        listens(address, &log)?;
        Ok((proxy, address))
    }

    fn client(&self, proxy: &Program, address: SocketAddr) -> Result<Client> {
        let this = &self.bench.places.compare;
        let arguments = [
            this.to_string_lossy().into_owned(),
            "load".to_owned(),
            name(self.mode)?,
            format!("--proxy={address}"),
            format!("--pid={}", proxy.id()),
            "--seconds=0".to_owned(),
            format!("--operations={}", self.options.operations),
        ];
        let mut program =
            self.bench
                .starter
                .ask_in_turns(CLIENT_CPU, &arguments, Stdio::piped())?;
        let (said, told) = (program.child.stdout.take(), program.child.stdin.take());
        Ok(Client {
            said: BufReader::new(said.context("no output")?),
            told: told.context("no input")?,
            _program: program,
        })
    }
}

/// The client, which says how far it is and waits for a line before it goes on.
struct Client {
    said: BufReader<ChildStdout>,
    told: ChildStdin,
    _program: Program,
}

impl Client {
    /// Waits until its connections are open.
    fn warm(&mut self) -> Result<()> {
        self.hears("warm")
    }

    /// Has it ask, until it has all answers.
    fn go(&mut self) -> Result<()> {
        writeln!(self.told)?;
        self.hears("done")
    }

    fn end(mut self) {
        let _ = writeln!(self.told);
    }

    fn hears(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        ensure!(line.trim() == word, "the client failed: {line}");
        Ok(())
    }
}

fn control(arguments: &[&str]) -> Result<()> {
    let status = Command::new("callgrind_control")
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .context("valgrind is needed to count instructions")?;
    ensure!(status.success(), "callgrind_control failed");
    Ok(())
}

/// What was dumped on request: the first with anything in it.
fn dump(out: &Path) -> Result<PathBuf> {
    for number in 1..=4 {
        let file = PathBuf::from(format!("{}.{number}", out.display()));
        if file.exists() && total(&fs::read_to_string(&file)?).is_ok_and(|it| it > 0.0) {
            return Ok(file);
        }
    }
    bail!("callgrind counted nothing")
}

fn total(text: &str) -> Result<f64> {
    let line = text.lines().rev().find_map(|it| {
        it.strip_prefix("totals: ")
            .or_else(|| it.strip_prefix("summary: "))
    });
    let total = line.and_then(|it| it.split(' ').next()?.parse().ok());
    total.context("callgrind counted nothing")
}

fn name(mode: Mode) -> Result<String> {
    let value = mode.to_possible_value().context("no name")?;
    Ok(value.get_name().to_owned())
}
