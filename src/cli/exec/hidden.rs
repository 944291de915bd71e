//! Files that a jailed command must not see: every file in the configuration except certificates
//! and programs.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml::Value;

use crate::app;
use crate::config::{self, AdminAddress, Config, Credential};

/// The first bytes of a script and of a Linux program.
const PROGRAM: [&[u8]; 2] = [b"#!", b"\x7fELF"];

/// Returns the configuration with its includes, secrets and keys, the default places of a
/// configuration, the records, and the sockets of a gate.
pub(super) fn files(config: &Config) -> Vec<PathBuf> {
    let listen = &config.listen;
    let admin = listen.admin.as_ref().and_then(|admin| match admin {
        AdminAddress::Unix(path) => Some(path.clone()),
        AdminAddress::Tcp(_) => None,
    });
    let control = listen.control.as_ref().map(|control| control.path.clone());
    let mut files: Vec<PathBuf> = admin.into_iter().chain(control).collect();
    files.extend(config.record.file.clone());
    files.extend(config.record.key.clone());
    files.extend(config.path.clone());
    files.extend(app::every_place());
    // The built-in configuration has no file, and the file of a repository lies in a commit: its text
    // names nothing of the operator.
    let read = config.path.iter().flat_map(|_| config.files.sources());
    for source in read {
        files.push(source.path.clone());
        let folder = source.path.parent().unwrap_or(Path::new(""));
        if let Ok(table) = source.text.parse::<toml::Table>() {
            files.extend(includes(&table, folder));
            named(&Value::Table(table), folder, &mut files);
        }
    }
    files.sort_unstable();
    files.dedup();
    files
}

/// Returns the programs that the gate starts.
pub(super) fn programs(config: &Config) -> Vec<PathBuf> {
    let credentials = config.dial.parents.iter().map(|parent| &parent.credential);
    let commands = credentials.filter_map(|credential| match credential {
        Some(Credential::Command { words, .. }) => words.first(),
        _ => None,
    });
    commands.map(PathBuf::from).collect()
}

/// Returns the included files, or the folder of an include pattern. They may not exist yet.
fn includes(table: &toml::Table, folder: &Path) -> Vec<PathBuf> {
    let patterns = match table.get("include") {
        Some(Value::Array(patterns)) => patterns.as_slice(),
        Some(pattern) => std::slice::from_ref(pattern),
        None => &[],
    };
    let place = |pattern: &str| {
        let path = folder.join(pattern);
        match path.parent().filter(|_| pattern.contains('*')) {
            Some(parent) => parent.to_owned(),
            None => path,
        }
    };
    let patterns = patterns.iter().filter_map(Value::as_str);
    patterns.map(place).collect()
}

/// Returns the files that a value of any key names, so that keys of later versions are covered.
fn named(value: &Value, folder: &Path, into: &mut Vec<PathBuf>) {
    match value {
        Value::String(text) => {
            let path = folder.join(text.strip_prefix("unix:").unwrap_or(text));
            if is_hidden(&path) {
                into.push(path);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| named(value, folder, into)),
        Value::Table(table) => table.values().for_each(|value| named(value, folder, into)),
        _ => {}
    }
}

/// Certificates are public, and a program is no secret; both may be in folders that every command
/// needs. A file that this user cannot read is hidden.
fn is_hidden(path: &Path) -> bool {
    let Ok(status) = path.metadata() else {
        return false;
    };
    if status.is_dir() {
        return false;
    }
    let may_run = status.is_file() && status.permissions().mode() & 0o111 != 0;
    let is_program = may_run && is_program(path);
    let is_public = |text: String| {
        let public = [
            "BEGIN CERTIFICATE-----",
            "BEGIN X509 CRL-----",
            "BEGIN PUBLIC KEY-----",
        ];
        let secret = text.contains("PRIVATE KEY");
        !secret && public.iter().any(|word| text.contains(word))
    };
    let is_certificate = status.is_file() && config::read(path).is_ok_and(is_public);
    !is_program && !is_certificate
}

/// Whether a file begins like a program: on file systems without modes, every file is executable.
fn is_program(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4).read_to_end(&mut head));
    read.is_ok() && PROGRAM.iter().any(|start| head.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_is_named_is_hidden_but_certificates_and_programs() {
        let folder = tempfile::TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        let key = "-----BEGIN PRIVATE KEY-----\n";
        let certificate = "-----BEGIN CERTIFICATE-----\n";
        for (name, text) in [
            ("key.pem", key),
            ("roots.pem", certificate),
            ("both.pem", &format!("{certificate}{key}")),
            ("password", "hush"),
            ("program", "#!/bin/sh\n"),
            ("secret", "hush"),
        ] {
            std::fs::write(at(name), text).unwrap();
        }
        let program = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(at("program"), program.clone()).unwrap();
        std::fs::set_permissions(at("secret"), program).unwrap();
        let text = "a = 'key.pem'\nb = ['roots.pem', 'both.pem']\n[[c.d]]\ne = 'password'\n\
                    f = 'program'\ng = 'none'\nh = 1\ni = 'secret'\n";
        let mut found = Vec::new();
        named(
            &Value::Table(text.parse().unwrap()),
            folder.path(),
            &mut found,
        );
        found.sort();
        assert_eq!(
            found,
            [at("both.pem"), at("key.pem"), at("password"), at("secret")]
        );
    }

    #[test]
    fn what_a_file_includes_is_hidden_before_it_is_there() {
        let of = |text: &str| includes(&text.parse().unwrap(), Path::new("/gate"));
        assert_eq!(of("include = 'a.toml'"), [Path::new("/gate/a.toml")]);
        let found = of("include = ['d/*.toml', '*.toml', '/x/y*']");
        assert_eq!(found, ["/gate/d", "/gate", "/x"].map(PathBuf::from));
        assert!(of("").is_empty());
    }
}
