//! The certificates that a command behind a running gate has to trust: read from its control
//! socket.

use std::io;
use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::config::{self, AdminAddress};
use crate::tls::{Bundle, Facts};

use super::super::{admin, ca};

/// The folder below the usual records folder, with one folder for each set of certificates.
const FOLDER: &str = "joined";

/// Returns the variables that make a command trust the gate's authority; empty if the gate inspects
/// nothing.
pub(super) fn variables(control: &AdminAddress) -> anyhow::Result<Vec<(&'static str, String)>> {
    let place = admin::show_address(control);
    let asked = admin::ask(control, "/v1/authority");
    let (status, pem) = asked.with_context(|| format!("no gate answers at {place}"))?;
    match status {
        204 => return Ok(Vec::new()),
        200 => {}
        _ => bail!(
            "the gate at {place} does not say which authority it inspects with (status {status}): \
             is it an older version? Restart it with this one"
        ),
    }
    let bundle = written(&pem).context("cannot write the trust bundle of the command")?;
    Ok(ca::variables(&bundle))
}

/// Writes the gate's certificates together with the system's to this user's record folder. Two
/// gates with different authorities do not overwrite each other's file.
fn written(pem: &str) -> io::Result<Bundle> {
    let all = Facts::of_pem(pem);
    let Some(current) = all.first() else {
        return Err(io::Error::other("the gate sent no certificate"));
    };
    let digits = current.fingerprint.chars().filter(char::is_ascii_hexdigit);
    let name: String = digits.take(16).collect();
    let folder = state().join(FOLDER).join(name);
    std::fs::create_dir_all(&folder)?;
    let bundle = Bundle::in_folder(&folder);
    let usual = ca::usual();
    bundle.write(all.iter().map(|it| it.der.as_slice()), usual.as_deref())?;
    Ok(bundle)
}

/// Returns the record folder of a gate without configuration.
fn state() -> PathBuf {
    let file = config::embedded().record.file.unwrap_or_default();
    file.parent().map(PathBuf::from).unwrap_or_default()
}
