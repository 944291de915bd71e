//! Counts the instructions and the system calls of one operation of a proxy.
//!
//! A number of operations is counted several times, in turns with the client, and the least count is
//! taken: what happens from time to time (a timer, the look at the configuration's files) is in few of them.
//! Client, origin and proxy share one processor, and none interrupts another: otherwise it would depend
//! on the machine how often the proxy finds nothing to read yet.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::callgrind::Profile;
use crate::client::Client;
use crate::figures::Mode;
use crate::peer::Peer;
use crate::program::Program;
use crate::suite::{Bench, listens, wait_closed};

/// Under callgrind a program takes long to listen, and to end.
const TIME_TO_LISTEN: Duration = Duration::from_secs(60);
/// How often the operations are counted.
const TURNS: u32 = 6;
/// jemalloc looks through the memory that a thread keeps, every 10 ms: how often that is in an operation
/// depends on the machine. This lets it look after so many bytes that it does not.
const NO_COLLECTION: &str = "_RJEM_MALLOC_CONF=tcache_gc_incr_bytes:1073741824";
/// The beginning of the names of the files that callgrind writes.
const DUMPS: &str = "callgrind.out";

/// What to count.
pub struct Count<'a> {
    pub bench: &'a Bench,
    pub peer: &'a Peer,
    pub mode: Mode,
    /// How many are counted together.
    pub operations: u32,
    /// How many clients ask at the same time.
    pub clients: usize,
}

/// What callgrind counted while the client asked `operations` times.
pub struct Turn {
    /// As callgrind wrote it.
    pub text: String,
    pub profile: Profile,
}

impl Count<'_> {
    /// Counts with callgrind, in several turns.
    pub fn instructions(&self) -> Result<Vec<Turn>> {
        let command = self.bench.prepare(self.peer)?;
        let scratch = &self.bench.places.scratch;
        let mut valgrind: Vec<String> = ["env", NO_COLLECTION, "valgrind"]
            .into_iter()
            .chain(["--tool=callgrind", "--instr-atstart=no"])
            .map(str::to_owned)
            .collect();
        let out = scratch.join(DUMPS);
        valgrind.push(format!("--callgrind-out-file={}", out.display()));
        valgrind.extend(command);
        let (proxy, address) = self.start(&valgrind)?;
        let mut client = self.client(&proxy, address, TURNS + 1)?;
        let pid = proxy.id().to_string();
        client.expect("warm")?;
        control(&["-i", "on", &pid])?;
        let mut turns = Vec::new();
        for _ in 0..=TURNS {
            client.go_on()?;
            client.expect("done")?;
            control(&["-d", &pid])?;
            turns.push(take_dump(scratch)?);
        }
        let _ = client.go_on();
        drop(client);
        wait_closed(proxy, address);
        // In the first turn callgrind meets threads that rest in functions whose call it did not see.
        Ok(turns.split_off(1))
    }

    /// Counts with perf the system calls of one operation.
    pub fn calls(&self) -> Result<f64> {
        let command = self.bench.prepare(self.peer)?;
        let (proxy, address) = self.start(&command)?;
        let mut client = self.client(&proxy, address, 1)?;
        client.expect("warm")?;
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
        client.go_on()?;
        client.expect("done")?;
        let stop = Command::new("kill")
            .args(["-INT", &perf.id().to_string()])
            .status();
        ensure!(stop?.success(), "cannot end perf");
        perf.wait()?;
        let _ = client.go_on();
        drop(client);
        wait_closed(proxy, address);
        let text = fs::read_to_string(&out)?;
        let line = text.lines().find(|it| it.contains("sys_enter"));
        let calls = line.and_then(|it| it.split(',').next()?.parse::<f64>().ok());
        Ok(calls.context("perf counted nothing")? / f64::from(self.operations))
    }

    fn start(&self, command: &[String]) -> Result<(Program, SocketAddr)> {
        let log = self.bench.log(self.peer);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.peer.port));
        let proxy = self.bench.start_proxy(command, address, &log)?;
        let end = Instant::now() + TIME_TO_LISTEN;
        while TcpStream::connect(address).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100));
        }
        listens(address, &log)?;
        Ok((proxy, address))
    }

    fn client(&self, proxy: &Program, address: SocketAddr, turns: u32) -> Result<Client> {
        let this = &self.bench.places.compare;
        let arguments = [
            this.to_string_lossy().into_owned(),
            "load".to_owned(),
            self.mode.name(),
            format!("--proxy={address}"),
            format!("--pid={}", proxy.id()),
            "--seconds=0".to_owned(),
            format!("--operations={}", self.operations),
            format!("--turns={turns}"),
            format!("--clients={}", self.clients),
        ];
        Client::new(self.bench.start_client(&arguments, Stdio::piped())?)
    }
}

fn control(arguments: &[&str]) -> Result<()> {
    let output = Command::new("callgrind_control")
        .args(arguments)
        .output()
        .context("valgrind is needed to count instructions")?;
    ensure!(
        output.status.success(),
        "callgrind_control failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Reads and removes the dump with counts; those of the switch to counting are empty.
fn take_dump(folder: &Path) -> Result<Turn> {
    let mut taken = Err(anyhow!("callgrind wrote no counts"));
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(DUMPS) {
            let text = fs::read_to_string(entry.path())?;
            fs::remove_file(entry.path())?;
            if let Ok(profile) = Profile::parse(&text) {
                taken = Ok(Turn { text, profile });
            }
        }
    }
    taken
}
