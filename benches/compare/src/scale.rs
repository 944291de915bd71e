//! Many hosts, many tunnels, a reload and several workers: what they change.

mod report;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::pace::{self, Flow, Paced};
use crate::program::{PROXY_CPU, Program, Starter};
use crate::suite::{Bench, Compared, is_free, load_average, processor, said, wait_closed};
use crate::{cpu, load};
use report::{Measured, Report, Run};

const PROXY: SocketAddr = address([127, 0, 0, 1], 18136);
/// Where tunnels that rest are asked for.
const PROXY_FOR_RESTING: SocketAddr = address([127, 0, 0, 2], 18136);
const ADMIN: SocketAddr = address([127, 0, 0, 1], 18137);

/// What tunnels are asked for: a name, which is looked for among all hosts.
const AUTHORITY: &str = "origin.example.com:18000";

const FEW_HOSTS: usize = 10;
const MANY_HOSTS: usize = 1_000_000;
const HOSTS_OF_A_RULE: usize = 1_000;
const FILES: usize = 10;
const TUNNELS: usize = 9_000;
const TIME_TO_LISTEN: Duration = Duration::from_secs(60);
/// How long a gate may be busy after its start or after many tunnels were opened.
const TIME_TO_REST: Duration = Duration::from_secs(20);
/// How long flows are watched before a reload, at most, and how long after the new policy is in force.
const BEFORE: Duration = Duration::from_secs(10);
const AFTER: Duration = Duration::from_secs(3);
const TIME_TO_RELOAD: Duration = Duration::from_secs(30);
/// The share of times that the greatest is at.
const MAXIMUM: f64 = 1.0;
/// Client and origin need a processor each, and two workers one each.
const PROCESSORS_FOR_WORKERS: usize = 4;

const fn address(ip: [u8; 4], port: u16) -> SocketAddr {
    let [a, b, c, d] = ip;
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port))
}

/// What is measured.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// New tunnels and memory with 10 hosts and with 1,000,000
    Hosts,
    /// New tunnels beside 9,000 tunnels at rest and without
    Idle,
    /// A reload of 1,000,000 hosts while new tunnels are asked for
    Reload,
    /// New tunnels with one processor for the gate and with two
    Workers,
}

/// What to measure.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    compared: Compared,
    /// Where the figures and the table go
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
    /// The name of the files in `results`; DATE-scale if not given. Parts that are there are replaced
    #[arg(long)]
    name: Option<String>,
    /// Only these parts
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    #[arg(long, default_value_t = 4)]
    rounds: u32,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

/// Measures, and writes figures and tables.
pub fn run(options: &Options) -> Result<()> {
    let date = said(&["date", "+%Y-%m-%d"])?;
    let name = options.name.clone().unwrap_or(date.clone() + "-scale");
    let file = options.results.join(format!("{name}.json"));
    let mut report = Report::read(&file)?;
    let bench = Bench::new(&options.compared)?;
    let scale = Scale {
        options,
        bench: &bench,
    };
    let parts = if options.only.is_empty() {
        Part::value_variants()
    } else {
        &options.only
    };
    for part in parts {
        let load = load_average();
        let (runs, why_not) = match scale.measure(*part) {
            Ok(runs) => (runs, None),
            Err(error) => (Vec::new(), Some(format!("{error:#}"))),
        };
        let measured = Measured {
            date: date.clone(),
            machine: machine(&bench)?,
            load: [load, load_average()],
            runs,
            why_not,
        };
        println!("{}", report::table(*part, &measured));
        report.parts.insert(*part, measured);
    }
    bench.clean()?;
    report.write(&file)
}

fn machine(bench: &Bench) -> Result<String> {
    let program = bench.places.tidegate.to_string_lossy();
    Ok(format!(
        "{} processors ({}), {}; {}",
        std::thread::available_parallelism()?,
        processor()?,
        said(&["uname", "-sr"])?,
        said(&[&program, "--version"])?
    ))
}

struct Scale<'a> {
    options: &'a Options,
    bench: &'a Bench,
}

/// A gate that runs.
struct Gate {
    program: Program,
    /// How long it took to listen.
    ready: Duration,
}

impl Scale<'_> {
    fn measure(&self, part: Part) -> Result<Vec<Run>> {
        if part == Part::Workers {
            return self.workers();
        }
        let _origin = self.bench.origin()?;
        let mut runs = Vec::new();
        for _ in 0..self.options.rounds {
            match part {
                Part::Hosts => {
                    runs.push(self.hosts(FEW_HOSTS)?);
                    runs.push(self.hosts(MANY_HOSTS)?);
                }
                Part::Idle => {
                    runs.push(self.idle(0)?);
                    runs.push(self.idle(TUNNELS)?);
                }
                Part::Reload => runs.extend(self.reload()?),
                Part::Workers => {}
            }
        }
        Ok(runs)
    }

    fn hosts(&self, hosts: usize) -> Result<Run> {
        let gate = self.start(hosts, PROXY_CPU, self.bench.starter)?;
        let memory = cpu::resident(gate.program.id());
        let rate = self.rate(&gate)?;
        wait_closed(gate.program, PROXY);
        Ok(Run::new(&report::counted(hosts, "hosts"))
            .with("new tunnels per CPU-second", rate)
            .with("memory, MiB", memory as f64 / f64::from(1 << 20))
            .with("start, s", gate.ready.as_secs_f64()))
    }

    fn idle(&self, tunnels: usize) -> Result<Run> {
        let gate = self.start(FEW_HOSTS, PROXY_CPU, self.bench.starter)?;
        let before = cpu::resident(gate.program.id());
        let held = if tunnels > 0 {
            let (proxy, tunnels) = (PROXY_FOR_RESTING.to_string(), tunnels.to_string());
            let mut client = self.client(&["hold", &proxy, &tunnels])?;
            client.expect("held")?;
            Some(client)
        } else {
            None
        };
        rest(gate.program.id());
        let memory = cpu::resident(gate.program.id()).saturating_sub(before);
        let rate = self.rate(&gate)?;
        drop(held);
        wait_closed(gate.program, PROXY);
        Ok(Run::new(&report::counted(tunnels, "tunnels at rest"))
            .with("new tunnels per CPU-second", rate)
            .with(
                "bytes of memory for each",
                memory as f64 / tunnels.max(1) as f64,
            ))
    }

    /// The gate has all processors and no priority, as in use.
    fn reload(&self) -> Result<[Run; 2]> {
        let all = format!("0-{}", std::thread::available_parallelism()?.get() - 1);
        let gate = self.start(MANY_HOSTS, &all, self.bench.starter.without_priority())?;
        let mut client = self.client(&["pace", &PROXY.to_string(), AUTHORITY])?;
        client.expect("begun")?;
        std::thread::sleep(Duration::from_secs(1) + BEFORE);
        let file = self.bench.places.scratch.join("hosts-0.toml");
        let rule = "[[rule]]\nid = \"new\"\nverdict = \"deny\"\nto.hosts = [\"new.example.com\"]\n";
        fs::write(&file, fs::read_to_string(&file)? + rule)?;
        let generation = generation()?;
        let asked = pace::now();
        signal(gate.program.id(), "-HUP")?;
        while self::generation()? == generation {
            ensure!(
                pace::now() - asked < TIME_TO_RELOAD,
                "the policy did not load"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let in_force = pace::now() - asked;
        std::thread::sleep(AFTER);
        let length = in_force + AFTER;
        let paced: Paced = serde_json::from_str(&client.finish()?)?;
        wait_closed(gate.program, PROXY);
        let within = |from: Duration, to: Duration| {
            let due = from.as_micros() as u64..to.as_micros() as u64;
            let flows = paced.flows.iter().copied();
            flows.filter(|it| due.contains(&it.due)).collect::<Vec<_>>()
        };
        if let Some(why) = paced.failed.first() {
            println!("{} flows failed: {why}", paced.failed.len());
        }
        Ok([
            latencies("before", &within(asked - length.min(BEFORE), asked)),
            latencies(
                "from the request to load on",
                &within(asked, asked + length),
            )
            .with("failed, in all", paced.failed.len() as f64)
            .with("new policy in force, s", in_force.as_secs_f64()),
        ])
    }

    fn workers(&self) -> Result<Vec<Run>> {
        let here = std::thread::available_parallelism()?.get();
        ensure!(
            here >= PROCESSORS_FOR_WORKERS,
            "{here} processors are here: client, origin and two workers need one each, {PROCESSORS_FOR_WORKERS} in all"
        );
        let _origin = self.bench.origin_on("1")?;
        let mut runs = Vec::new();
        for _ in 0..self.options.rounds {
            for (name, on) in [("one worker", "2"), ("two workers", "2,3")] {
                let gate = self.start(FEW_HOSTS, on, self.bench.starter)?;
                let figures = self.load(&gate)?;
                wait_closed(gate.program, PROXY);
                runs.push(
                    Run::new(name).with("new tunnels per second", figure(&figures, "per_s")?),
                );
            }
        }
        Ok(runs)
    }

    /// New tunnels for a CPU-second of the gate.
    fn rate(&self, gate: &Gate) -> Result<f64> {
        figure(&self.load(gate)?, "per_cpu_s")
    }

    fn load(&self, gate: &Gate) -> Result<BTreeMap<String, f64>> {
        let client = self.client(&[
            "load",
            "connect",
            &format!("--proxy={PROXY}"),
            &format!("--pid={}", gate.program.id()),
            &format!("--seconds={}", self.options.seconds),
            &format!("--authority={AUTHORITY}"),
        ])?;
        serde_json::from_str(&client.finish()?).context("the client ended without figures")
    }

    fn client(&self, arguments: &[&str]) -> Result<Client> {
        let this = self.bench.places.compare.to_string_lossy();
        let arguments: Vec<&str> = [&*this]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        Client::new(self.bench.start_client(&arguments, Stdio::piped())?)
    }

    /// Starts a gate on the processors `on`, and waits until it has nothing to do.
    fn start(&self, hosts: usize, on: &str, starter: Starter) -> Result<Gate> {
        self.bench.empty_scratch()?;
        let places = &self.bench.places;
        let names = write_hosts(&places.scratch, hosts)?;
        let template = self.bench.folder.join("etc/scale.toml");
        let text = fs::read_to_string(&template)
            .with_context(|| format!("cannot read {}", template.display()))?;
        let config = places.scratch.join("tidegate.toml");
        fs::write(&config, places.fill(&text).replace("{include}", &names))?;
        is_free(PROXY)?;
        let command = [
            places.tidegate.as_os_str(),
            "run".as_ref(),
            "--config".as_ref(),
            config.as_os_str(),
        ];
        let log = places.scratch.join("gate.log");
        let begin = Instant::now();
        let program = starter.start(on, &command, &log)?;
        while TcpStream::connect(PROXY).is_err() {
            let said = fs::read_to_string(&log).unwrap_or_default();
            ensure!(
                begin.elapsed() < TIME_TO_LISTEN,
                "the gate does not listen: {said}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        let ready = begin.elapsed();
        rest(program.id());
        Ok(Gate { program, ready })
    }
}

/// Writes rules for hosts that no flow is for; returns the names of the files as a list in TOML.
fn write_hosts(folder: &Path, hosts: usize) -> Result<String> {
    let rules: Vec<String> = (0..hosts.div_ceil(HOSTS_OF_A_RULE))
        .map(|rule| {
            let from = rule * HOSTS_OF_A_RULE;
            let names: String = (from..(from + HOSTS_OF_A_RULE).min(hosts))
                .map(|it| {
                    format!(
                        "    \"host-{it}.team-{}.corp-{}.example.com\",\n",
                        it % 97,
                        it % 7919
                    )
                })
                .collect();
            format!(
                "[[rule]]\nid = \"hosts-{rule}\"\nverdict = \"allow\"\nto.hosts = [\n{names}]\n\n"
            )
        })
        .collect();
    let mut names = Vec::new();
    for (at, rules) in rules.chunks(rules.len().div_ceil(FILES)).enumerate() {
        let name = format!("hosts-{at}.toml");
        fs::write(folder.join(&name), rules.concat())?;
        names.push(format!("\"{name}\""));
    }
    Ok(names.join(", "))
}

/// Waits until a process takes no processor time, for some time at most.
fn rest(pid: u32) {
    let end = Instant::now() + TIME_TO_REST;
    let (mut spent, mut rests) = (cpu::spent(pid), 0);
    while rests < 4 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(250));
        let now = cpu::spent(pid);
        rests = if now == spent { rests + 1 } else { 0 };
        spent = now;
    }
}

/// The generation of the policy in force, as the admin listener tells it.
fn generation() -> Result<u64> {
    let mut stream = TcpStream::connect(ADMIN)?;
    stream.set_read_timeout(Some(TIME_TO_RELOAD))?;
    write!(
        stream,
        "GET /v1/policy HTTP/1.1\r\nHost: {ADMIN}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let said = answer.split_once("\"generation\":");
    let digits = said.and_then(|(_, rest)| rest.split([',', '}']).next());
    digits
        .and_then(|it| it.parse().ok())
        .with_context(|| format!("no generation: {answer}"))
}

fn signal(pid: u32, name: &str) -> Result<()> {
    let sent = Command::new("kill")
        .args([name, &pid.to_string()])
        .status()?;
    ensure!(sent.success(), "cannot signal the gate");
    Ok(())
}

fn latencies(name: &str, flows: &[Flow]) -> Run {
    let mut times: Vec<Duration> = flows
        .iter()
        .map(|it| Duration::from_micros(it.took))
        .collect();
    Run::new(name)
        .with("flows", times.len() as f64)
        .with("p50, ms", load::percentile(&mut times, 0.5) / 1000.0)
        .with("p99, ms", load::percentile(&mut times, 0.99) / 1000.0)
        .with(
            "maximum, ms",
            load::percentile(&mut times, MAXIMUM) / 1000.0,
        )
}

fn figure(figures: &BTreeMap<String, f64>, key: &str) -> Result<f64> {
    figures
        .get(key)
        .copied()
        .with_context(|| format!("no {key}"))
}
