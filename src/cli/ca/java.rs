//! Java's key store of root certificates, made with Java's own tool.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::tls::{self, Facts};

use super::Failed;
use super::system::{program, run};

/// The default password of Java's public certificate stores; it protects nothing.
const PASSWORD: &str = "changeit";

/// Adds certificates to a store; if there is none, to a copy of Java's own.
pub(super) fn add(store: &Path, published: &[Facts]) -> Result<(), Failed> {
    let keytool = program("keytool").ok_or_else(|| {
        Failed::wrong("there is no `keytool` in the PATH: it comes with a Java runtime")
    })?;
    if !store.exists() {
        copy_of_java(&keytool, store)?;
    }
    for facts in published {
        let short: String = facts.fingerprint.split(':').take(6).collect();
        let alias = format!("tidegate-{}", short.to_lowercase());
        let command = |verb: &str| {
            let mut command = Command::new(&keytool);
            command.args([verb, "-alias", &alias, "-storepass", PASSWORD, "-keystore"]);
            command.arg(store);
            command
        };
        if run(command("-list")).is_ok() {
            continue;
        }
        let mut file = store.to_owned().into_os_string();
        file.push(format!(".{}.pem", std::process::id()));
        let file = Path::new(&file);
        tls::replace(file, &tls::pem([facts.der.as_slice()].into_iter()), 0o644)?;
        let mut import = command("-importcert");
        import.args(["-noprompt", "-file"]).arg(file);
        let imported = run(import);
        let _ = fs::remove_file(file);
        imported?;
    }
    Ok(())
}

/// Copies Java's roots to the store, because the store replaces them.
fn copy_of_java(keytool: &Path, store: &Path) -> Result<(), Failed> {
    let home = keytool.canonicalize()?;
    let home = home
        .parent()
        .and_then(Path::parent)
        .unwrap_or(Path::new("/"));
    let places = ["lib/security/cacerts", "jre/lib/security/cacerts"];
    let own = places
        .iter()
        .map(|it| home.join(it))
        .find(|it| it.is_file());
    let own = own.ok_or_else(|| {
        Failed::wrong(format!(
            "{}: no roots of Java are found below it",
            home.display()
        ))
    })?;
    if let Some(folder) = store.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(own, store)?;
    Ok(())
}
