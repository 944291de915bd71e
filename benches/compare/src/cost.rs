//! What one operation costs tidegate: instructions of its own code, and calls of the kernel.
//!
//! Counts vary less than times do: they can be taken on a machine with other work, and compared with
//! those of an earlier build. Instructions are counted by callgrind, system calls by perf, in two runs
//! of the program.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::counting::{Count, Turn};
use crate::counts::{self, Counts, Toolchain};
use crate::figures::Mode;
use crate::origin;
use crate::program::PROXY_CPU;
use crate::suite::{Bench, Compared, is_free};

/// Operations that are counted together.
const OPERATIONS: u32 = 500;
const MODES: [Mode; 4] = [Mode::Connect, Mode::Http, Mode::Tunnel, Mode::TlsHttp];
/// Functions that are not counted: a processor with SHA instructions takes others.
const SHA256: &str = "sha256_block_data_order";
/// Parts of an operation that are counted by themselves: the name, the mode, and the beginnings of the names
/// of the functions that belong to it.
const PARTS: [(&str, Mode, &[&str]); 2] = [
    ("decide", Mode::Connect, &["tidegate::policy::answer::"]),
    (
        "encode",
        Mode::Connect,
        &["tidegate::record::encode::", "tidegate::record::json::"],
    ),
];
/// How often the program is started and counted; the least count is taken.
const RUNS: u32 = 2;
/// How often at most, while a count is above the allowed.
const MAX_RUNS: u32 = 4;

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
    /// Operations that are counted together; this is done six times, and the least count taken
    #[arg(long, default_value_t = OPERATIONS)]
    operations: u32,
    /// How many clients ask at the same time
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Count system calls too, with perf
    #[arg(long)]
    calls: bool,
    /// Keep what callgrind wrote in this folder, for callgrind_annotate
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Fail if a count differs by more than 2 % from that in this file
    #[arg(long, conflicts_with_all = ["write", "peer", "modes", "operations", "clients", "calls"])]
    check: Option<PathBuf>,
    /// Write the counts into this file
    #[arg(long, conflicts_with_all = ["peer", "modes", "operations", "clients", "calls"])]
    write: Option<PathBuf>,
}

/// Counts, and prints a table; compares the counts or writes them, if so asked.
pub fn run(options: &Options) -> Result<()> {
    let bench = Bench::new(&options.compared)?;
    let bench = if options.clients == 1 {
        bench.on_one_processor()
    } else {
        bench
    };
    let counted = Counter {
        options,
        bench: &bench,
    }
    .run();
    bench.clean()?;
    counted
}

struct Counter<'a> {
    options: &'a Options,
    bench: &'a Bench,
}

impl Counter<'_> {
    fn run(&self) -> Result<()> {
        if let Some(file) = &self.options.check {
            return self.check(file);
        }
        let counted = self.all(&BTreeMap::new())?;
        let Some(file) = &self.options.write else {
            return Ok(());
        };
        let toolchain = Toolchain::of(&self.bench.places.tidegate)?;
        Counts {
            toolchain,
            instructions: counted,
        }
        .write(file)
    }

    fn check(&self, file: &Path) -> Result<()> {
        let before = Counts::read(file)?;
        let toolchain = Toolchain::of(&self.bench.places.tidegate)?;
        if let Some(difference) = before.toolchain.difference(&toolchain) {
            println!("NOT COMPARED with {}: {difference}", file.display());
            return Ok(());
        }
        if let Err(why) = self.may_count() {
            println!("NOT COMPARED with {}: {why}", file.display());
            return Ok(());
        }
        let counted = self.all(&before.instructions)?;
        let differences = before.differences(&counted);
        ensure!(
            differences.is_empty(),
            "{}\nWhere they come from: compare cost --keep FOLDER, then callgrind_annotate FOLDER/MODE.\n\
             If they are meant: compare cost --write {}",
            differences.join("\n"),
            file.display()
        );
        for lower in before.lower(&counted) {
            println!(
                "LESS, so that a later increase would not be noticed: {lower}: compare cost --write {}",
                file.display()
            );
        }
        println!("no count is more than 2 % above that in {}", file.display());
        Ok(())
    }

    /// Whether this machine lets this user count: what has nothing to do with the counts.
    fn may_count(&self) -> Result<()> {
        ensure!(
            self.bench.starter.may_start(PROXY_CPU),
            "this user may not start programs on processor {PROXY_CPU} with 20,000 descriptors"
        );
        for address in [origin::PLAIN, origin::RESTING, origin::TLS] {
            is_free(address)?;
        }
        let tried = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "true"])
            .stderr(Stdio::null())
            .status();
        ensure!(tried.is_ok_and(|it| it.success()), "valgrind does not run");
        Ok(())
    }

    /// Counts all modes; again, where a count is too far above that of `before`.
    fn all(&self, before: &BTreeMap<String, u64>) -> Result<BTreeMap<String, u64>> {
        let _origin = self.bench.origin()?;
        let (title, line) = if self.options.calls {
            (" system calls |", "---|")
        } else {
            ("", "")
        };
        println!("| an operation | instructions |{title}\n|---|---|{line}");
        let modes = if self.options.modes.is_empty() {
            &MODES[..]
        } else {
            &self.options.modes
        };
        let mut counted = BTreeMap::new();
        for mode in modes {
            let of_mode = self.least(*mode, before)?;
            for (name, instructions) in &of_mode {
                let calls = if self.options.calls && *name == mode.name() {
                    format!(" {:.2} |", self.count(*mode, |count| count.calls())?)
                } else {
                    line.replace("---", " ")
                };
                println!("| {name} | {instructions} |{calls}");
            }
            counted.extend(of_mode);
        }
        Ok(counted)
    }

    /// The least counts of several runs.
    fn least(&self, mode: Mode, before: &BTreeMap<String, u64>) -> Result<BTreeMap<String, u64>> {
        let mut least: BTreeMap<String, u64> = BTreeMap::new();
        for run in 1..=MAX_RUNS {
            for turn in self.count(mode, |count| count.instructions())? {
                for (name, instructions) in self.counts(mode, &turn)? {
                    let known = least.entry(name.clone()).or_insert(u64::MAX);
                    if instructions < *known {
                        *known = instructions;
                        self.keep(&name, &turn)?;
                    }
                }
            }
            let is_above = |(name, count): (&String, &u64)| {
                before
                    .get(name)
                    .is_some_and(|it| counts::is_above(*count, *it))
            };
            if run >= RUNS && !least.iter().any(is_above) {
                break;
            }
        }
        Ok(least)
    }

    fn count<T>(&self, mode: Mode, counted: impl Fn(&Count<'_>) -> Result<T>) -> Result<T> {
        let peers = self.bench.peers()?;
        let peer = peers
            .iter()
            .find(|it| it.name == self.options.peer && it.modes.contains(&mode))
            .context("the list has no such peer with this mode")?;
        counted(&Count {
            bench: self.bench,
            peer,
            mode,
            operations: self.options.operations,
            clients: self.options.clients,
        })
    }

    /// The instructions of one operation and of its parts.
    fn counts(&self, mode: Mode, turn: &Turn) -> Result<Vec<(String, u64)>> {
        let each = |all: u64| all / u64::from(self.options.operations);
        let mut counts = vec![(mode.name(), each(turn.profile.total(&[SHA256])))];
        let is_tidegate = self.options.peer == "tidegate";
        for (name, of, functions) in PARTS.iter().filter(|(_, of, _)| is_tidegate && *of == mode) {
            let inside = turn.profile.inside(functions).with_context(|| {
                format!(
                    "{name}: {of:?} called no function {}…: was it renamed? \
                     benches/compare/src/cost.rs names it",
                    functions.join("… or ")
                )
            })?;
            counts.push(((*name).to_owned(), each(inside)));
        }
        Ok(counts)
    }

    fn keep(&self, name: &str, turn: &Turn) -> Result<()> {
        let Some(folder) = &self.options.keep else {
            return Ok(());
        };
        fs::create_dir_all(folder)?;
        Ok(fs::write(folder.join(name), &turn.text)?)
    }
}
