//! Landlock (landlock(7)): a second wall behind the mounts. It also holds for descriptors that were
//! opened outside, and for signals.

use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    Scope, path_beneath_rules,
};

use super::promise::{Missing, Promise};

/// The rights of writing that are refused; a kernel that has fewer of them refuses those.
const WRITES: ABI = ABI::V3;
/// Before it, Landlock refuses every renaming from one folder to another.
const FIRST: ABI = ABI::V2;
const SCOPES: ABI = ABI::V6;

/// Folders that every command writes in, beside those of its view.
const ALWAYS: [&str; 2] = ["/dev", "/proc"];

/// What this kernel's Landlock does not give.
pub(super) fn missing() -> Vec<Missing> {
    let mut missing = Vec::new();
    let hard = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let writes = hard()
        .handle_access(AccessFs::from_write(FIRST))
        .and_then(Ruleset::create);
    if let Err(error) = writes {
        missing.push(Missing::new(
            Promise::Writes,
            format!("no Landlock of ABI 2: {error}"),
        ));
    }
    let signals = hard()
        .scope(Scope::from_all(SCOPES))
        .and_then(Ruleset::create);
    if let Err(error) = signals {
        missing.push(Missing::new(
            Promise::Signals,
            format!("no Landlock of ABI 6: {error}"),
        ));
    }
    missing
}

/// Restricts this process and all that it starts: it writes below `writable`, and signals only
/// processes that are restricted with it. Where Landlock is missing this does nothing.
pub(super) fn restrict(writable: &[PathBuf], missing: &[Promise]) -> io::Result<()> {
    if missing.contains(&Promise::Writes) {
        return Ok(());
    }
    let rights = AccessFs::from_write(WRITES);
    let always = ALWAYS.iter().map(PathBuf::from);
    let places: Vec<PathBuf> = writable.iter().cloned().chain(always).collect();
    let mut rules = Ruleset::default().handle_access(rights).map_err(other)?;
    if !missing.contains(&Promise::Signals) {
        rules = rules.scope(Scope::from_all(SCOPES)).map_err(other)?;
    }
    let rules = rules.create().map_err(other)?;
    let rules = rules
        .add_rules(path_beneath_rules(&places, rights))
        .map_err(other)?;
    rules.restrict_self().map_err(other)?;
    Ok(())
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("Landlock: {error}"))
}
