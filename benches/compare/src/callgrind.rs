//! Reads the profiles that valgrind's callgrind writes: what each function executed, and what each
//! call of a function cost with all that it called.
//!
//! The format: <https://valgrind.org/docs/manual/cl-format.html>.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};

/// The instructions of one profile.
#[derive(Debug, Default)]
pub struct Profile {
    /// The instructions of each function, without the functions that it calls.
    own: HashMap<String, u64>,
    calls: Vec<Call>,
}

/// All calls from one place in a function to another function.
#[derive(Debug)]
struct Call {
    caller: String,
    callee: String,
    /// Instructions of the callee, with the functions that it calls.
    instructions: u64,
}

impl Profile {
    /// Reads a profile with one event (`Ir`, executed instructions) and one position (the line).
    pub fn parse(text: &str) -> Result<Self> {
        let mut profile = Self::default();
        let mut names: HashMap<String, String> = HashMap::new();
        let (mut caller, mut callee) = (String::new(), None);
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                caller = full_name(&mut names, name)?;
            } else if let Some(name) = line.strip_prefix("cfn=") {
                callee = Some(full_name(&mut names, name)?);
            } else if let Some(instructions) = cost(line) {
                match callee.take() {
                    Some(callee) => profile.calls.push(Call {
                        caller: caller.clone(),
                        callee,
                        instructions,
                    }),
                    None => *profile.own.entry(caller.clone()).or_default() += instructions,
                }
            }
        }
        ensure!(profile.total(&[]) > 0, "callgrind counted nothing");
        Ok(profile)
    }

    /// All instructions, without those of functions whose name contains one of `without`.
    pub fn total(&self, without: &[&str]) -> u64 {
        self.own
            .iter()
            .filter(|(name, _)| !without.iter().any(|it| name.contains(it)))
            .map(|(_, instructions)| instructions)
            .sum()
    }

    /// The instructions from entering the functions whose name starts with one of `prefixes` until
    /// their return, with all functions that they call. `None` if no other function calls one.
    pub fn inside(&self, prefixes: &[&str]) -> Option<u64> {
        let is_inside = |name: &str| prefixes.iter().any(|it| name.starts_with(it));
        self.calls
            .iter()
            .filter(|call| is_inside(&call.callee) && !is_inside(&call.caller))
            .map(|call| call.instructions)
            .reduce(|all, one| all + one)
    }
}

/// The name behind `(12) name` or, if it was written before, `(12)`.
fn full_name(names: &mut HashMap<String, String>, written: &str) -> Result<String> {
    let (number, name) = written.split_once(' ').unwrap_or((written, ""));
    if name.is_empty() {
        let known = names.get(number).cloned();
        return known.with_context(|| format!("callgrind names no function {number}"));
    }
    names.insert(number.to_owned(), name.to_owned());
    Ok(name.to_owned())
}

/// The instructions of a line with costs: `+3 120`.
fn cost(line: &str) -> Option<u64> {
    let (position, cost) = line.split_once(' ')?;
    let is_position = position.starts_with(['+', '-', '*'])
        || (!position.is_empty() && position.bytes().all(|it| it.is_ascii_digit()));
    if !is_position {
        return None;
    }
    cost.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "\
# callgrind format
version: 1
pid: 7
part: 2

positions: line
events: Ir
summary: 0


ob=(1) /bin/tidegate
fl=(1) ???
fn=(1) serve
0 100
+1 20
cfn=(2) policy::decide
calls=3 0
* 600
cob=(2) /lib/libc.so
cfi=(2) memcpy.S
cfn=(3) memcpy
calls=1 +9
-1 50

fn=(2)
0 400
cfn=(4) policy::judge
calls=3 0
0 200

fn=(4)
0 200

fn=(3)
12 50
totals: 770
";

    #[test]
    fn the_total_leaves_functions_out() {
        let profile = Profile::parse(WRITTEN).expect("a profile");
        assert_eq!(profile.total(&[]), 770);
        assert_eq!(profile.total(&["mem"]), 720);
    }

    #[test]
    fn calls_within_a_module_are_counted_once() {
        let profile = Profile::parse(WRITTEN).expect("a profile");
        assert_eq!(profile.inside(&["policy::"]), Some(600));
        assert_eq!(profile.inside(&["policy::judge"]), Some(200));
    }

    #[test]
    fn a_function_that_is_not_there_is_no_zero() {
        let profile = Profile::parse(WRITTEN).expect("a profile");
        assert_eq!(profile.inside(&["record::encode::"]), None);
    }

    #[test]
    fn an_empty_profile_is_an_error() {
        assert!(Profile::parse("events: Ir\nsummary: 0\ntotals: 0\n").is_err());
    }
}
