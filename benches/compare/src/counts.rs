//! The file of instruction counts that a build is compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

/// How much a count may differ, in percent.
const MAX_CHANGE: u64 = 2;
const HEAD: &str = "\
# Instructions of one operation of a release build, written by `compare cost --write`. `compare cost --check`
# fails if a build takes 2 % more. If it says that a build takes less, the new counts belong here. See benches/compare/README.md.

";

/// Counts, and the toolchain of the build that was counted.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    pub toolchain: Toolchain,
    /// The instructions of one operation, by name.
    pub instructions: BTreeMap<String, u64>,
}

/// What changes counts without a change of the source. Counts are compared with those of the same toolchain only.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Toolchain {
    /// The compiler of the program, as the program names it.
    rustc: String,
    /// The compiler of its C libraries, as the program names it.
    cc: String,
    /// The C library of this machine.
    libc: String,
    /// Valgrind shows programs a processor of its own, by version.
    valgrind: String,
    /// The architecture, and whether the processor has AVX2: valgrind then emulates the same processor
    /// everywhere.
    processor: String,
    /// The kernel decides when a program has to wait, and so what it does again.
    kernel: String,
}

impl Counts {
    pub fn read(file: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        toml::from_str(&text).with_context(|| {
            format!(
                "cannot parse {}: write it anew with `compare cost --write`",
                file.display()
            )
        })
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        let text = HEAD.to_owned() + &toml::to_string(self)?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Says of each new count how far it is above the count here, if that is too far.
    pub fn differences(&self, new: &BTreeMap<String, u64>) -> Vec<String> {
        let names: BTreeSet<&String> = self.instructions.keys().chain(new.keys()).collect();
        let difference = |name: &String| match (self.instructions.get(name), new.get(name)) {
            (Some(before), Some(new)) if is_above(*new, *before) => Some(format!(
                "{name}: {new} instructions, {:.1} % MORE than {before}",
                change(*new, *before)
            )),
            (Some(_), Some(_)) => None,
            (Some(_), None) => Some(format!("{name}: not counted")),
            (None, _) => Some(format!("{name}: has no count to be compared with")),
        };
        names.into_iter().filter_map(difference).collect()
    }

    /// Says of each new count how far it is below the count here, if that is far.
    pub fn lower(&self, new: &BTreeMap<String, u64>) -> Vec<String> {
        let lower = |(name, before): (&String, &u64)| {
            let new = *new.get(name)?;
            is_below(new, *before).then(|| {
                let less = -change(new, *before);
                format!("{name}: {new} instructions, {less:.1} % less than {before}")
            })
        };
        self.instructions.iter().filter_map(lower).collect()
    }
}

/// Whether a count is too far above that of before.
pub fn is_above(new: u64, before: u64) -> bool {
    new * 100 > before * (100 + MAX_CHANGE)
}

/// Whether a count is so far below that a later slowdown would not be noticed.
fn is_below(new: u64, before: u64) -> bool {
    new * 100 < before * (100 - MAX_CHANGE)
}

/// In percent.
fn change(new: u64, before: u64) -> f64 {
    100.0 * (new as f64 / before as f64 - 1.0)
}

impl Toolchain {
    /// The toolchain of a program, and that of this machine which runs it.
    pub fn of(program: &Path) -> Result<Self> {
        let comments = output_of(
            Command::new("readelf")
                .args(["-p", ".comment"])
                .arg(program),
        )?;
        let comment = |start: &str| {
            let found = comments.lines().find_map(|it| Some(&it[it.find(start)?..]));
            found.unwrap_or("unknown").trim().to_owned()
        };
        let flags = fs::read_to_string("/proc/cpuinfo")?;
        let has_avx2 = flags.split_whitespace().any(|it| it == "avx2");
        let avx2 = if has_avx2 { " with AVX2" } else { "" };
        Ok(Self {
            rustc: comment("rustc version"),
            cc: comment("GCC:"),
            libc: output_of(Command::new("getconf").arg("GNU_LIBC_VERSION"))?,
            valgrind: output_of(Command::new("valgrind").arg("--version"))?,
            processor: std::env::consts::ARCH.to_owned() + avx2,
            kernel: output_of(Command::new("uname").arg("-sr"))?,
        })
    }

    /// Says what differs from `other`.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let pairs = [
            (&self.rustc, &other.rustc),
            (&self.cc, &other.cc),
            (&self.libc, &other.libc),
            (&self.valgrind, &other.valgrind),
            (&self.processor, &other.processor),
            (&self.kernel, &other.kernel),
        ];
        let different: Vec<String> = pairs
            .iter()
            .filter(|(mine, others)| mine != others)
            .map(|(mine, others)| format!("this is {others}, the counts are of {mine}"))
            .collect();
        (!different.is_empty()).then(|| different.join("; "))
    }
}

fn output_of(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instructions(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        let own = |(name, count): &(&str, u64)| ((*name).to_owned(), *count);
        counts.iter().map(own).collect()
    }

    fn toolchain(rustc: &str) -> Toolchain {
        Toolchain {
            rustc: rustc.to_owned(),
            cc: "GCC: 12".to_owned(),
            libc: "glibc 2.36".to_owned(),
            valgrind: "valgrind-3.19.0".to_owned(),
            processor: "x86_64 with AVX2".to_owned(),
            kernel: "Linux 6.18".to_owned(),
        }
    }

    fn counts() -> Counts {
        Counts {
            toolchain: toolchain("rustc version 1.95.0"),
            instructions: instructions(&[("connect", 100_000), ("http", 50_000)]),
        }
    }

    #[test]
    fn two_percent_pass_and_more_does_not() {
        let passes = instructions(&[("connect", 102_000), ("http", 49_000)]);
        assert_eq!(counts().differences(&passes), [""; 0]);
        let fails = instructions(&[("connect", 102_001), ("http", 48_999)]);
        let [more] = &counts().differences(&fails)[..] else {
            panic!("one difference");
        };
        assert!(more.starts_with("connect: 102001 instructions, 2.0 % MORE"));
        let [less] = &counts().lower(&fails)[..] else {
            panic!("one lower count");
        };
        assert!(less.starts_with("http: 48999 instructions, 2.0 % less"));
    }

    #[test]
    fn a_count_without_a_partner_fails() {
        let new = instructions(&[("connect", 100_000), ("decide", 3_000)]);
        let expected = [
            "decide: has no count to be compared with",
            "http: not counted",
        ];
        assert_eq!(counts().differences(&new), expected);
    }

    #[test]
    fn counts_of_another_compiler_are_not_compared() {
        let mine = counts().toolchain;
        assert_eq!(mine.difference(&mine), None);
        let difference = mine.difference(&toolchain("rustc version 1.96.0"));
        let expected = "this is rustc version 1.96.0, the counts are of rustc version 1.95.0";
        assert_eq!(difference.as_deref(), Some(expected));
    }

    #[test]
    fn what_is_written_can_be_read() {
        let file = std::env::temp_dir().join(format!("counts-{}.toml", std::process::id()));
        counts().write(&file).expect("written");
        let read = Counts::read(&file);
        fs::remove_file(&file).expect("removed");
        assert_eq!(read.expect("read").instructions, counts().instructions);
    }
}
