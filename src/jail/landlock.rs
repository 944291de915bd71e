//! Landlock (landlock(7)): a second wall behind the mounts. Landlock also restricts descriptors
//! that were opened outside the jail, and signals.

use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    Scope, path_beneath_rules,
};

use super::promise::{Missing, Promise};

/// The write rights that are refused; an older kernel refuses only the ones that it has.
const WRITES: ABI = ABI::V3;
/// Minimum version: version 1 refuses every rename from one folder to another.
const FIRST: ABI = ABI::V2;
const SCOPES: ABI = ABI::V6;

/// Folders in which every command may write, besides the writable folders of its view.
const ALWAYS: [&str; 2] = ["/dev", "/proc"];

/// Returns the promises that this kernel's Landlock does not support.
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

/// Restricts this process and its children: they write only below `writable`, and signal only
/// processes of the same restriction. Does nothing if Landlock is missing.
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
