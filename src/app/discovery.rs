//! The configuration file of a command: one search order for all commands.
//!
//! `--config FILE`, else `$TIDEGATE_CONFIG`, else `/etc/tidegate/tidegate.toml`, else
//! `$XDG_CONFIG_HOME/tidegate/tidegate.toml` (`~/.config` without the variable), else the built-in
//! policy. A file of the user never replaces an unreadable file of the machine: a file that exists
//! but cannot be read is an error. A file of the working copy is never used: its author does not
//! decide what the working copy may reach.
//!
//! `--config` and the variable come before `/etc` because a person who may start `tidegate` may
//! start any other program as well. The order keeps the operator's file from being replaced by
//! accident; it is not a wall. Each command names its configuration, and the file of the machine
//! that it does not use.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The configuration of the machine.
const MACHINE: &str = "/etc/tidegate/tidegate.toml";
/// The configuration of a user, relative to the user's configuration folder.
const USER: &str = "tidegate/tidegate.toml";
/// The default file of pins, relative to the home.
const PINS: &str = ".local/state/tidegate/workspaces.json";

/// Why a command uses this configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// The command line names it.
    CommandLine,
    /// `TIDEGATE_CONFIG` names it.
    Variable,
    /// `/etc/tidegate/tidegate.toml` exists.
    Machine,
    /// The user's own file exists.
    User,
    /// No file exists.
    BuiltIn,
}

/// The configuration that a command uses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Discovered {
    /// The file; `None` for the built-in policy.
    pub path: Option<PathBuf>,
    /// The reason for this choice.
    pub origin: Origin,
    /// Whether the configuration of the machine exists and is not the one in use.
    pub overrides_machine: bool,
}

/// The environment that decides, besides the command line.
#[derive(Debug)]
struct Surroundings {
    variable: Option<PathBuf>,
    machine: PathBuf,
    user: Option<PathBuf>,
    home: Option<PathBuf>,
}

/// Finds the configuration of a command whose command line names `named`.
pub fn discover(named: Option<&Path>) -> Discovered {
    Surroundings::of_this_process().discover(named)
}

/// Every file that another run of this user could use as its configuration or its pins, with or
/// without the variables of this run, whether the file exists or not.
pub fn every_place() -> Vec<PathBuf> {
    Surroundings::of_this_process().every_place()
}

impl Surroundings {
    #[expect(
        clippy::disallowed_methods,
        reason = "the command line named no configuration: the environment is asked here alone"
    )]
    fn of_this_process() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let absolute = |name: &str| {
            let path = text(name).map(PathBuf::from);
            path.filter(|path| path.is_absolute())
        };
        let home = absolute("HOME");
        let folder = absolute("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        Self {
            variable: text("TIDEGATE_CONFIG").map(PathBuf::from),
            machine: PathBuf::from(MACHINE),
            user: folder.map(|folder| folder.join(USER)),
            home,
        }
    }

    fn every_place(self) -> Vec<PathBuf> {
        let usual = self.home.map(|home| {
            let user = home.join(".config").join(USER);
            [user, home.join(PINS)]
        });
        let named = self.variable.into_iter().chain(self.user);
        let mut places: Vec<PathBuf> = named.chain(usual.into_iter().flatten()).collect();
        places.push(self.machine);
        places.sort_unstable();
        places.dedup();
        places
    }

    fn discover(self, named: Option<&Path>) -> Discovered {
        let machine = may_exist(&self.machine);
        let user = self.user.filter(|user| may_exist(user));
        let (path, origin) = match (named, self.variable) {
            (Some(named), _) => (Some(named.to_owned()), Origin::CommandLine),
            (None, Some(variable)) => (Some(variable), Origin::Variable),
            (None, None) if machine => (Some(self.machine.clone()), Origin::Machine),
            (None, None) if user.is_some() => (user, Origin::User),
            (None, None) => (None, Origin::BuiltIn),
        };
        Discovered {
            overrides_machine: machine
                && path
                    .as_deref()
                    .is_none_or(|path| !same_file(path, &self.machine)),
            path,
            origin,
        }
    }
}

/// Whether a file may exist. If the system cannot answer (a folder that this user may not enter),
/// the result is `true`: reading the file then fails, and reports why.
fn may_exist(path: &Path) -> bool {
    let missing = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        )
    };
    std::fs::symlink_metadata(path).map_or_else(|error| !missing(&error), |_| true)
}

fn same_file(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

impl Discovered {
    /// The file; `None` for the built-in policy.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// One line that names the configuration, without a line end. `None` if the command line names
    /// the file already.
    pub fn line(&self) -> Option<String> {
        (self.origin != Origin::CommandLine || self.overrides_machine)
            .then(|| format!("tidegate: {self}"))
    }
}

impl fmt::Display for Discovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "policy {}", path.display())?,
            None => write!(f, "no configuration: the built-in policy decides")?,
        }
        let why = match self.origin {
            Origin::CommandLine => "--config",
            Origin::Variable => "TIDEGATE_CONFIG",
            Origin::Machine | Origin::User | Origin::BuiltIn => "",
        };
        match (why, self.overrides_machine) {
            ("", _) => Ok(()),
            (why, false) => write!(f, " (from {why})"),
            (why, true) => write!(f, " (from {why}), not {MACHINE}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folders(tempfile::TempDir);

    impl Folders {
        fn new(files: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for name in files {
                let file = folder.path().join(name);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, "").unwrap();
            }
            Self(folder)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn discover(&self, named: Option<&str>, variable: Option<&str>) -> Discovered {
            let surroundings = Surroundings {
                variable: variable.map(PathBuf::from),
                machine: self.path("etc/t.toml"),
                user: Some(self.path("home/t.toml")),
                home: Some(self.path("home")),
            };
            surroundings.discover(named.map(Path::new))
        }
    }

    #[test]
    fn the_file_of_the_machine_wins_over_that_of_the_user() {
        let both = Folders::new(&["etc/t.toml", "home/t.toml"]);
        let found = both.discover(None, None);
        assert_eq!(found.path, Some(both.path("etc/t.toml")));
        assert_eq!(
            (found.origin, found.overrides_machine),
            (Origin::Machine, false)
        );
        let user = Folders::new(&["home/t.toml"]);
        let found = user.discover(None, None);
        assert_eq!(found.path, Some(user.path("home/t.toml")));
        assert_eq!(found.origin, Origin::User);
        let none = Folders::new(&[]).discover(None, None);
        assert_eq!((none.path.as_deref(), none.origin), (None, Origin::BuiltIn));
        assert_eq!(
            none.line().unwrap(),
            "tidegate: no configuration: the built-in policy decides"
        );
    }

    #[test]
    fn the_command_line_comes_first_then_the_variable_and_both_say_what_they_pass_over() {
        let machine = Folders::new(&["etc/t.toml"]);
        let found = machine.discover(Some("a.toml"), Some("b.toml"));
        assert_eq!(found.origin, Origin::CommandLine);
        assert!(
            found
                .line()
                .unwrap()
                .ends_with("not /etc/tidegate/tidegate.toml")
        );
        let found = machine.discover(None, Some("b.toml"));
        assert_eq!(found.path.as_deref(), Some(Path::new("b.toml")));
        assert!(found.overrides_machine);
        let alone = Folders::new(&[]);
        assert_eq!(alone.discover(Some("a.toml"), None).line(), None);
        assert_eq!(
            alone.discover(None, Some("b.toml")).line().unwrap(),
            "tidegate: policy b.toml (from TIDEGATE_CONFIG)"
        );
    }

    #[test]
    fn every_place_of_another_run_is_named_whether_it_exists_or_not() {
        let surroundings = Surroundings {
            variable: Some("a.toml".into()),
            machine: "/etc/t.toml".into(),
            user: Some("/xdg/tidegate/tidegate.toml".into()),
            home: Some("/home/ana".into()),
        };
        let places = [
            "/etc/t.toml",
            "/home/ana/.config/tidegate/tidegate.toml",
            "/home/ana/.local/state/tidegate/workspaces.json",
            "/xdg/tidegate/tidegate.toml",
            "a.toml",
        ];
        assert_eq!(surroundings.every_place(), places.map(PathBuf::from));
    }

    #[test]
    fn a_link_that_leads_nowhere_is_no_reason_to_look_further() {
        let folders = Folders::new(&["etc/other", "home/t.toml"]);
        std::os::unix::fs::symlink("/nowhere/at/all", folders.path("etc/t.toml")).unwrap();
        assert_eq!(folders.discover(None, None).origin, Origin::Machine);
    }
}
