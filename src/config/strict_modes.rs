//! Checks which users can change the files of a policy, like `StrictModes` of sshd.
//!
//! The check covers each file that was read, each folder above it up to `/`, and each symbolic link
//! on the path: the folders of the link and those of its target. root and the gate's own user may
//! own them, and no other user may write to them: neither by group nor as other. Three exceptions:
//!
//! - A folder that all users may write to is allowed if it is sticky (`/tmp`, mode 1777): another
//!   user cannot rename or remove files of root or the gate in it, and everything below it is
//!   checked as well. (sshd has no such exception; git has.)
//! - The group may write if it is the private group of the gate's own user, with no other member:
//!   many systems give each user such a group and a umask of 002. (sshd on Debian has the same
//!   exception.)
//!
//! - The mount point of a read-only mount may have any mode if root owns it and the gate is the
//!   first process of a container: Kubernetes mounts a `ConfigMap` as a folder of mode 0777. (Not
//!   for a service of systemd, whose read-only view does not restrict other views.)
//!
//! An access control list (POSIX ACL) that lets another user write appears in the group bits, so
//! this check covers it. The check ignores what root or the server of the file system could do.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::process::{getegid, geteuid};

use crate::diag::Diagnostic;

use super::{Config, Credential, Delivery, files, folder_of, plain_program};

/// Maximum number of links that are followed for one file: as many as the kernel follows.
const MAX_LINKS: usize = 40;
/// The last user id of a system account (`SYS_UID_MAX` of login.defs).
pub use crate::policy::LAST_SYSTEM_UID;
/// The owner that the kernel shows for users outside this user namespace.
const OVERFLOW_UID: u32 = 65_534;
const GROUP_WRITE: u32 = 0o020;
const WORLD_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;
const EXECUTE: u32 = 0o111;

/// The users who may own the files of a policy, and write to them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Owners {
    /// root, the gate's own user, and the users that the operator names.
    users: BTreeSet<u32>,
    /// The group of the gate's own user that has no other member.
    private_group: Option<u32>,
    /// The user of the gate.
    own: u32,
    /// Whether root does not exist in this user namespace.
    root_is_unmapped: bool,
    /// Whether programs have to be root's, and each with plain words.
    programs_of_root: bool,
    /// Whether system accounts may own files.
    services: bool,
}

impl Owners {
    /// Returns root and the user of this process.
    pub fn of_this_process() -> Self {
        let own = geteuid().as_raw();
        let mut users = BTreeSet::from([0, own]);
        // If root does not exist in this user namespace, its files appear to belong to the overflow
        // user.
        let map = super::read(Path::new("/proc/self/uid_map")).unwrap_or_default();
        let root_is_unmapped = !map.trim().is_empty() && !maps_root(&map);
        if root_is_unmapped {
            users.insert(OVERFLOW_UID);
        }
        let group = getegid().as_raw();
        let text = |path: &str| super::read(Path::new(path)).unwrap_or_default();
        let private = is_private(own, group, &text("/etc/passwd"), &text("/etc/group"));
        Self {
            users,
            private_group: private.then_some(group),
            own,
            root_is_unmapped,
            programs_of_root: false,
            services: false,
        }
    }

    /// Adds users that the operator names: no caller is one of them.
    #[must_use]
    pub fn and(mut self, others: &[u32]) -> Self {
        self.users.extend(others);
        self
    }

    /// Adds every user of a service: which of them the gate will be is unknown here.
    #[must_use]
    pub fn and_services(self) -> Self {
        Self {
            services: true,
            ..self
        }
    }

    /// Returns the owners for the gate of one command, which has the same user. Programs must
    /// belong to root, because the command could rewrite others. In a user namespace, users who do
    /// not exist in it may own files: no process in it is one of them.
    #[must_use]
    pub fn for_a_command(mut self) -> Self {
        self.programs_of_root = true;
        let map = super::read(Path::new("/proc/self/uid_map")).unwrap_or_default();
        if !is_initial(&map) {
            self.users.insert(OVERFLOW_UID);
        }
        self
    }

    /// Returns the users who may own programs that the gate starts, and write to them.
    #[must_use]
    pub fn for_programs(&self) -> Self {
        let mut owners = self.clone();
        if self.programs_of_root {
            // The overflow owner counts only if it stands for root: not if root exists here, and
            // not if this user has that number.
            let unmapped = self.root_is_unmapped && self.own != OVERFLOW_UID;
            owners
                .users
                .retain(|user| *user == 0 || *user == OVERFLOW_UID && unmapped);
            owners.private_group = None;
        }
        owners
    }

    /// Returns how another user could change a file; `None` if the file is not exposed.
    fn wrong_with(&self, path: &Path, meta: &Metadata) -> Option<Exposure> {
        let mode = meta.mode();
        let exposed = |how| {
            Some(Exposure {
                path: path.to_owned(),
                how,
            })
        };
        let service = self.services && meta.uid() <= LAST_SYSTEM_UID;
        if !service && !self.users.contains(&meta.uid()) {
            return exposed(How::Owner(meta.uid()));
        }
        // The mode of a link has no effect.
        if meta.is_symlink() || meta.is_dir() && mode & STICKY != 0 {
            return None;
        }
        if mode & WORLD_WRITE != 0 {
            return exposed(How::World(mode));
        }
        let own_group = self.private_group == Some(meta.gid());
        if mode & GROUP_WRITE != 0 && !own_group {
            return exposed(How::Group(mode, meta.gid()));
        }
        None
    }
}

/// Whether a map of user ids (`INSIDE OUTSIDE COUNT` lines) contains user 0 inside.
fn maps_root(map: &str) -> bool {
    map.lines()
        .filter_map(|line| line.split_ascii_whitespace().next())
        .any(|first| first == "0")
}

/// Whether a map of user ids belongs to the initial user namespace, which contains every user.
fn is_initial(map: &str) -> bool {
    map.trim().is_empty() || map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

/// Whether a group belongs to one user alone: no other member, and no other user's primary group.
fn is_private(user: u32, group: u32, users: &str, groups: &str) -> bool {
    let (user, group) = (user.to_string(), group.to_string());
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let mut name = None;
    for account in users.lines().map(fields) {
        let [login, _, id, first, ..] = &account[..] else {
            continue;
        };
        if *id == user {
            name = name.or_else(|| Some(login.clone()));
        } else if *first == group {
            return false;
        }
    }
    let Some(name) = name else { return false };
    let mut listed = groups
        .lines()
        .map(fields)
        .filter(|line| line.get(2) == Some(&group));
    let Some(line) = listed.next() else {
        return false;
    };
    let members = line.get(3).map_or("", String::as_str);
    let alone = members
        .split(',')
        .all(|member| member.is_empty() || member == name);
    alone && line.first() == Some(&name) && listed.next().is_none()
}

/// A file or folder that another user could change, and how.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Exposure {
    path: PathBuf,
    how: How,
}

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum How {
    /// This user owns it.
    Owner(u32),
    /// Every user may write; with the mode.
    World(u32),
    /// This group may write; with the mode.
    Group(u32, u32),
    /// A program that cannot be executed, or is not a regular file.
    NoProgram,
    /// A program that runs its arguments.
    Interpreter,
    /// An argument of a program that may name a file or contain a script.
    Argument(String),
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.how {
            How::Owner(user) => write!(
                f,
                "{path}: its owner is user {user}, who can change it and is neither root nor the \
                 user of the gate"
            ),
            How::World(mode) => write!(
                f,
                "{path}: its mode is {:04o}: every user can change it",
                mode & 0o7777
            ),
            How::Group(mode, group) => write!(
                f,
                "{path}: its mode is {:04o}: each member of group {group} can change it",
                mode & 0o7777
            ),
            How::NoProgram => write!(
                f,
                "{path}: this is no program: no regular file that may be run"
            ),
            How::Interpreter => write!(
                f,
                "{path}: it runs what its arguments or files of the user say, and the command of \
                 `exec` can change those"
            ),
            How::Argument(word) => write!(
                f,
                "{path}: its argument `{}` may name a file or hold a script, which the command of \
                 `exec` could change",
                word.escape_default()
            ),
        }
    }
}

impl Exposure {
    /// Whether the fault is a program that cannot be executed.
    pub fn is_no_program(&self) -> bool {
        self.how == How::NoProgram
    }

    /// Returns the remedy.
    fn help(&self) -> String {
        let path = self.path.display();
        match &self.how {
            How::Owner(user) => format!(
                "run `chown root {path}`; where no caller is user {user}, start the gate with \
                 `run --policy-owner {user}`"
            ),
            How::World(_) => format!("run `chmod go-w {path}`"),
            How::Group(..) => format!("run `chmod g-w {path}`"),
            How::NoProgram => format!("name a program, or run `chmod +x {path}`"),
            How::Interpreter | How::Argument(_) => "write a script of root's own, e.g. \
                 /usr/local/bin/proxy-token (`chown root`, `chmod 755`), and name it alone: \
                 `credential-command = [\"/usr/local/bin/proxy-token\"]`; its arguments are words \
                 of letters, digits and `-_.,:=@+`"
                .to_owned(),
        }
    }

    fn finding(&self) -> Diagnostic {
        let code = match &self.how {
            How::Owner(_) => "foreign-owner",
            How::World(_) | How::Group(..) => "writable-by-others",
            How::NoProgram => "no-program",
            How::Interpreter | How::Argument(_) => "program-runs-others",
        };
        Diagnostic::unplaced(code, self.to_string()).help(self.help())
    }
}

/// Returns everything in a configuration that other users could change: its files, includes, keys,
/// certificates, lists, programs, and the folders above all of them.
pub fn exposures(config: &Config, owners: &Owners) -> Vec<Diagnostic> {
    let mut walk = Walk::new(owners);
    // A text without a file: the built-in policy.
    if config.path.is_none() {
        return Vec::new();
    }
    for path in config.files.paths() {
        walk.file(&path);
    }
    let program_owners = owners.for_programs();
    let mut programs = Walk::new(&program_owners);
    for parent in &config.dial.parents {
        if let Some(Credential::Command { words, .. }) = &parent.credential {
            programs.words(words);
        }
    }
    for notifier in &config.notifiers {
        match &notifier.delivery {
            Delivery::Webhook(webhook) => webhook.files().for_each(|path| {
                walk.file(path);
            }),
            Delivery::Command(words) => programs.words(words),
            Delivery::Desktop(path) => programs.words(std::slice::from_ref(path)),
        }
    }
    walk.found.append(&mut programs.found);
    walk.found.iter().map(Exposure::finding).collect()
}

/// Returns why a program and its arguments may not be run, if a user besides `owners` could change
/// them.
pub fn exposed_program(words: &[String], owners: &Owners) -> Option<Exposure> {
    let mut walk = Walk::new(owners);
    walk.words(words);
    walk.found.into_iter().next()
}

/// Returns why a file may not be read again, if a user besides `owners` could change it.
pub fn exposed_file(path: &Path, owners: &Owners) -> Option<Exposure> {
    let mut walk = Walk::new(owners);
    walk.file(path);
    walk.found.into_iter().next()
}

/// Returns a finding for each of these files that a user besides `owners` could change.
pub fn exposed_files(paths: &[PathBuf], owners: &Owners) -> Vec<Diagnostic> {
    let mut walk = Walk::new(owners);
    for path in paths {
        walk.file(path);
    }
    walk.found.iter().map(Exposure::finding).collect()
}

/// Checks files and everything on their paths, each once.
struct Walk<'a> {
    owners: &'a Owners,
    seen: BTreeSet<PathBuf>,
    found: BTreeSet<Exposure>,
}

impl<'a> Walk<'a> {
    fn new(owners: &'a Owners) -> Self {
        Self {
            owners,
            seen: BTreeSet::new(),
            found: BTreeSet::new(),
        }
    }

    /// Checks a program and its arguments: a file that is an argument is run or read like the
    /// program.
    fn words(&mut self, words: &[String]) {
        for (place, word) in words.iter().enumerate() {
            // The program runs in `/`. An argument that is no file name is ignored.
            let path = Path::new("/").join(word);
            if place > 0 && fs::symlink_metadata(&path).is_err() {
                continue;
            }
            let (at, is_program) = match self.file(&path) {
                Some((at, meta)) => (at, meta.is_file() && meta.mode() & EXECUTE != 0),
                None => (path.clone(), false),
            };
            if place == 0 && self.owners.programs_of_root {
                self.plain(&path, &at, words);
            }
            if place == 0 && !is_program {
                self.found.insert(Exposure {
                    path: at,
                    how: How::NoProgram,
                });
            }
        }
    }

    /// Checks that a program of root's has plain arguments; `at` is its real path.
    fn plain(&mut self, path: &Path, at: &Path, words: &[String]) {
        let is_interpreter = [path, at].into_iter().any(plain_program::is_interpreter);
        let arguments = words.iter().skip(1);
        let wrong = arguments.filter(|word| !plain_program::is_plain(word));
        let wrong = wrong.map(|word| How::Argument(word.clone()));
        let interpreter = is_interpreter.then_some(How::Interpreter);
        self.found
            .extend(interpreter.into_iter().chain(wrong).map(|how| Exposure {
                path: path.to_owned(),
                how,
            }));
    }

    /// Checks a file and everything on its path; returns its real path.
    fn file(&mut self, path: &Path) -> Option<(PathBuf, Metadata)> {
        let path = std::path::absolute(path).ok()?;
        let mut at = PathBuf::from("/");
        let mut last = self.look(&at)?;
        let mut rest: Vec<_> = reversed(&path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                at.pop();
                last = self.look(&at)?;
                continue;
            }
            at.push(name);
            let meta = self.look(&at)?;
            if !meta.is_symlink() {
                last = meta;
                continue;
            }
            links += 1;
            let target = fs::read_link(&at).ok().filter(|_| links <= MAX_LINKS)?;
            at.pop();
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            rest.extend(reversed(&target));
        }
        Some((at, last))
    }

    /// Checks one file, folder or link; `None` if it does not exist or cannot be read.
    fn look(&mut self, path: &Path) -> Option<Metadata> {
        let meta = fs::symlink_metadata(path).ok()?;
        if self.seen.insert(path.to_owned()) {
            let found = self.owners.wrong_with(path, &meta);
            let sealed = meta.is_dir() && meta.uid() == 0 && is_sealed(path);
            self.found.extend(found.filter(|_| !sealed));
        }
        Some(meta)
    }
}

/// Whether a folder is the mount point of a read-only mount, in a container whose first process
/// this is.
fn is_sealed(path: &Path) -> bool {
    if std::process::id() != 1 || path == Path::new("/") {
        return false;
    }
    let mounts = super::read(Path::new("/proc/self/mountinfo")).unwrap_or_default();
    is_read_only(&mounts, path)
}

/// Whether the last mount on a path is read-only; `mounts` has the form of `/proc/self/mountinfo`.
fn is_read_only(mounts: &str, path: &Path) -> bool {
    let mut last = None;
    for line in mounts.lines() {
        let mut fields = line.split_ascii_whitespace().skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else {
            continue;
        };
        if Path::new(point) == path {
            last = Some(options);
        }
    }
    last.is_some_and(|options| options.split(',').any(|option| option == "ro"))
}

/// Returns the names of a path, the last one first; `..` stays, because the name before may be a
/// link.
fn reversed(path: &Path) -> Vec<std::ffi::OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut names: Vec<_> = names.collect();
    names.reverse();
    names
}

impl files::Files {
    /// Returns every file that was read, and the folder of each include pattern.
    fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = self.secrets.clone();
        for file in &self.read {
            let folder = folder_of(&file.source.path);
            paths.push(file.source.path.clone());
            paths.extend(
                file.includes
                    .iter()
                    .map(|pattern| folder.join(fixed(pattern))),
            );
        }
        paths
    }
}

/// Returns the part of a path before its last component, if that is a pattern.
fn fixed(pattern: &str) -> &str {
    match pattern.rsplit_once('/') {
        _ if !pattern.contains('*') => pattern,
        Some(("", _)) => "/",
        Some((folder, _)) => folder,
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0::/:/bin/sh\nana:x:1000:1000::/home/ana:/bin/sh\n\
                         ben:x:1001:1001::/home/ben:/bin/sh\ncem:x:1002:1003::/:/bin/sh\n";

    #[test]
    fn a_group_is_private_where_no_other_user_is_in_it() {
        let groups = "root:x:0:\nana:x:1000:\nben:x:1001:ana\nstaff:x:1003:\n";
        assert!(is_private(1000, 1000, USERS, groups));
        assert!(is_private(1000, 1000, USERS, "ana:x:1000:ana\n"));
        // Another member, another user's primary group, another name, an unlisted group.
        assert!(!is_private(1001, 1001, USERS, groups));
        assert!(!is_private(1000, 1003, USERS, groups));
        assert!(!is_private(1002, 1003, USERS, groups));
        assert!(!is_private(1000, 1000, USERS, "root:x:0:\n"));
        assert!(!is_private(
            1000,
            1000,
            USERS,
            "ana:x:1000:\nalso:x:1000:ben\n"
        ));
        assert!(!is_private(4242, 1000, USERS, groups));
        assert!(!is_private(1000, 1000, "", groups));
    }

    #[test]
    fn a_namespace_without_root_is_told_from_one_with() {
        assert!(maps_root("         0          0 4294967295\n"));
        assert!(maps_root(
            "      1000       1000          1\n         0          0          1\n"
        ));
        assert!(!maps_root("      1000       1000          1\n"));
        assert!(is_initial("         0          0 4294967295\n"));
        assert!(!is_initial("         0       1000          1\n"));
    }

    #[test]
    fn a_mount_is_read_only_where_the_last_one_on_its_point_is() {
        let mounts = "22 1 0:20 / / rw - overlay o rw\n\
                      23 22 0:21 / /etc/tidegate ro,relatime - tmpfs t rw\n\
                      24 22 0:22 / /etc/open ro - tmpfs t rw\n25 22 0:23 / /etc/open rw - tmpfs t rw\n";
        let read_only = |path: &str| is_read_only(mounts, Path::new(path));
        assert!(read_only("/etc/tidegate"));
        assert!(!read_only("/etc/open") && !read_only("/etc") && !read_only("/"));
    }

    #[test]
    fn programs_of_a_gate_that_watches_its_own_user_are_roots() {
        let own = Owners {
            users: BTreeSet::from([0, 1000]),
            private_group: Some(1000),
            ..Owners::default()
        };
        assert_eq!(own.for_programs().users, BTreeSet::from([0, 1000]));
        let of_root = Owners {
            programs_of_root: true,
            ..own
        }
        .for_programs();
        assert_eq!(
            (of_root.users, of_root.private_group),
            (BTreeSet::from([0]), None)
        );
    }

    #[test]
    fn unmapped_users_own_programs_only_where_one_of_them_is_root() {
        let of = |own, root_is_unmapped| {
            let owners = Owners {
                users: BTreeSet::from([0, own, OVERFLOW_UID]),
                own,
                root_is_unmapped,
                programs_of_root: true,
                ..Owners::default()
            };
            owners.for_programs().users.contains(&OVERFLOW_UID)
        };
        assert!(of(1000, true));
        assert!(!of(1000, false) && !of(OVERFLOW_UID, false) && !of(OVERFLOW_UID, true));
    }

    #[test]
    fn programs_of_root_are_no_interpreters_and_have_plain_words() {
        let found = |words: &[&str], programs_of_root| {
            let owners = Owners {
                programs_of_root,
                ..Owners::of_this_process()
            };
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let exposed = exposed_program(&words, &owners.and_services());
            exposed.is_some_and(|it| matches!(it.how, How::Interpreter | How::Argument(_)))
        };
        for words in [
            &["/bin/sh", "x"][..],
            &["/usr/bin/env", "x"],
            &["/bin/cat", "/home/ana/token"],
            &["/bin/cat", "~ana"],
            &["/bin/cat", "a b"],
        ] {
            assert!(found(words, true), "{words:?}");
            assert!(!found(words, false), "{words:?}");
        }
        assert!(!found(&["/bin/echo", "ana:hunter2"], true));
    }

    #[test]
    fn a_circle_of_links_ends_and_a_path_that_goes_up_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::os::unix::fs::symlink("b", at("a")).unwrap();
        std::os::unix::fs::symlink("a", at("b")).unwrap();
        fs::create_dir(at("deep")).unwrap();
        fs::write(at("file"), "").unwrap();
        let owners = Owners::of_this_process();
        assert!(Walk::new(&owners).file(&at("a")).is_none());
        let (real, meta) = Walk::new(&owners).file(&at("deep/../file")).unwrap();
        assert_eq!(real.file_name(), at("file").file_name());
        assert!(meta.is_file());
    }
}
