//! The trust store of the system: the folder for certificates, and the command that reads them.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tls::{self, Facts};

/// The trust store of one kind of system.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct System {
    folder: &'static str,
    ending: &'static str,
    /// The command that reads the folder.
    update: &'static str,
}

/// The prefix of the gate's files, by which the files of former authorities are found.
const PREFIX: &str = "tidegate-";

/// Debian, Ubuntu, Alpine; Fedora, RHEL; Arch.
const KNOWN: [System; 3] = [
    System {
        folder: "/usr/local/share/ca-certificates",
        ending: "crt",
        update: "update-ca-certificates",
    },
    System {
        folder: "/etc/pki/ca-trust/source/anchors",
        ending: "pem",
        update: "update-ca-trust",
    },
    System {
        folder: "/etc/ca-certificates/trust-source/anchors",
        ending: "pem",
        update: "update-ca-trust",
    },
];

impl System {
    /// Returns the kind of this system.
    pub(super) fn here() -> Option<&'static Self> {
        KNOWN.iter().find(|it| {
            let above = Path::new(it.folder).parent();
            program(it.update).is_some() && above.is_some_and(Path::is_dir)
        })
    }

    /// Returns the file for a certificate: one file each, because some systems read only one per
    /// file.
    pub(super) fn file(&self, facts: &Facts) -> PathBuf {
        let short: String = facts.fingerprint.split(':').take(6).collect();
        let name = format!("{PREFIX}{}.{}", short.to_lowercase(), self.ending);
        Path::new(self.folder).join(name)
    }

    /// Returns the commands for a user with permission; `published` are the certificates, in that
    /// order.
    pub(super) fn commands(&self, published: &[Facts]) -> String {
        let mut text = String::new();
        for facts in published {
            let pem = tls::pem([facts.der.as_slice()].into_iter());
            let file = self.file(facts).display().to_string();
            let _ = write!(text, "sudo tee {file} >/dev/null <<'END'\n{pem}END\n");
        }
        text + "sudo " + self.update + "\n"
    }

    /// Writes the certificates, removes the gate's certificates that are no longer published, and
    /// runs the system's update command.
    pub(super) fn install(&self, published: &[Facts]) -> io::Result<()> {
        let folder = Path::new(self.folder);
        fs::create_dir_all(folder)?;
        let files: Vec<_> = published.iter().map(|it| self.file(it)).collect();
        for entry in fs::read_dir(folder)?.flatten() {
            let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
            if ours && !files.contains(&entry.path()) {
                fs::remove_file(entry.path())?;
            }
        }
        for (file, facts) in files.iter().zip(published) {
            tls::replace(file, &tls::pem([facts.der.as_slice()].into_iter()), 0o644)?;
        }
        let update = program(self.update).unwrap_or_else(|| self.update.into());
        run(Command::new(update))
    }
}

/// Runs a program to its end; the error has the program's output.
pub(super) fn run(mut command: Command) -> io::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let of = |why: String| io::Error::other(format!("{name}: {why}"));
    let output = command.output().map_err(|error| of(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    // Some programs print errors to standard error, others to standard output.
    let said = [output.stderr, output.stdout].concat();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().find(|line| !line.trim().is_empty());
    Err(of(line.map_or_else(
        || output.status.to_string(),
        |line| super::print::clean(line, 200),
    )))
}

/// Returns the path of a program in the PATH.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut folders = std::env::split_paths(&folders).chain(usual);
    folders.find_map(|folder| Some(folder.join(name)).filter(|it| it.is_file()))
}

#[cfg(test)]
mod tests {
    use crate::policy::Names;
    use crate::tls::NewAuthority;

    use super::*;

    fn facts() -> Facts {
        let names = Names {
            names: vec!["example.com".to_owned()],
            ..Names::default()
        };
        let new = NewAuthority::make(&names, super::super::now()).unwrap();
        Facts::of_pem(&new.cert).remove(0)
    }

    #[test]
    fn what_is_no_longer_published_is_taken_away_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let system = System {
            folder: folder.path().display().to_string().leak(),
            ending: "crt",
            update: "true",
        };
        let (old, new) = (facts(), facts());
        let theirs = folder.path().join("corporate.crt");
        fs::write(&theirs, "theirs").unwrap();
        system.install(std::slice::from_ref(&old)).unwrap();
        assert!(system.file(&old).is_file());
        system.install(&[new.clone(), old.clone()]).unwrap();
        assert!(system.file(&old).is_file() && system.file(&new).is_file());
        system.install(std::slice::from_ref(&new)).unwrap();
        assert!(!system.file(&old).exists() && theirs.is_file());
        let commands = system.commands(std::slice::from_ref(&new));
        assert!(commands.contains(&system.file(&new).display().to_string()));
        assert!(commands.ends_with("sudo true\n"), "{commands}");
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no room >&2; exit 1"]);
        let said = run(command).unwrap_err().to_string();
        assert_eq!(said, "sh: no room");
    }
}
