//! The file system that a jailed command sees: a root that is built for it. A file that is not in
//! this root does not exist for the command under any name, even after it is renamed outside.

pub(super) mod build;
mod devices;
mod expose;
mod hidden;
mod home;
mod path;
mod planted;
mod settings;
mod sockets;
mod toolchain;
mod working_copy;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use hidden::Hidden;

pub use planted::planted;

/// System folders that every command gets, read-only.
const SYSTEM: [&str; 11] = [
    "/bin", "/etc", "/gnu", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/opt", "/sbin", "/usr",
];
/// Parts of other system folders that programs read: certificate authorities, installed packages,
/// the number of processors, the memory limit of a container.
const PARTS: [&str; 7] = [
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
    "/var/cache/fontconfig",
    "/var/lib/ca-certificates",
    "/var/lib/dpkg",
    "/var/lib/rpm",
];
/// Private folders of the command, and their modes.
const PRIVATE: [(&str, u32); 3] = [("/run", 0o755), ("/tmp", 0o1777), ("/var/tmp", 0o1777)];
/// Folders that all users share, or that belong to the system: none of them is a working copy.
const NO_WORKING_COPY: [&str; 12] = [
    "/", "/dev", "/home", "/mnt", "/media", "/proc", "/run", "/srv", "/sys", "/tmp", "/var",
    "/var/tmp",
];

/// A path outside that the user shares with the command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Share {
    /// The path of a file, a folder or a socket.
    pub path: PathBuf,
    /// Whether the command may only read it.
    pub read_only: bool,
}

impl std::str::FromStr for Share {
    type Err = String;

    /// Reads `PATH` or `PATH:ro`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (path, read_only) = match text.strip_suffix(":ro") {
            Some(path) => (path, true),
            None => (text, false),
        };
        if path.is_empty() {
            return Err("write PATH, or PATH:ro for reading only".into());
        }
        Ok(Self {
            path: path.into(),
            read_only,
        })
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = if self.read_only { ":ro" } else { "" };
        write!(f, "{}{end}", self.path.display())
    }
}

/// The content of a path in the view.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) enum Content {
    /// The content outside, without the folders that are listed in [`View::without`].
    ReadOnly,
    /// The content outside, writable.
    Writable,
    /// An empty folder in memory, with this mode.
    Private(u32),
    /// A symbolic link.
    Link(PathBuf),
    /// A copy of a file with certificates and no key.
    Certificates,
    /// A copy of a file.
    Copy,
    /// A copy of a settings file without credentials.
    Settings,
    /// An empty file, over a socket.
    Covered,
}

/// The file system that the command sees.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct View {
    /// Parents before children.
    pub(super) places: BTreeMap<PathBuf, Content>,
    /// Folders that a read-only place leaves out.
    pub(super) without: Vec<PathBuf>,
    /// The working directory.
    pub(super) directory: PathBuf,
    /// The message to the user: what is left out, and how to give it back.
    pub(super) notes: Vec<String>,
}

impl View {
    /// Returns the folders and files below which the command may write.
    pub(super) fn writable(&self) -> Vec<PathBuf> {
        let places = self.places.iter();
        let writable = places
            .filter(|(_, content)| matches!(content, Content::Writable | Content::Private(_)));
        writable.map(|(path, _)| path.clone()).collect()
    }

    /// Returns the nearest place at or above a path.
    fn nearest(&self, path: &Path) -> Option<(&Path, &Content)> {
        path.ancestors().find_map(|at| {
            let (place, content) = self.places.get_key_value(at)?;
            Some((place.as_path(), content))
        })
    }

    /// Whether the path shows the content outside.
    fn shows(&self, path: &Path) -> bool {
        let nearest = self.nearest(path);
        nearest.is_some_and(|(_, is)| matches!(is, Content::ReadOnly | Content::Writable))
    }
}

/// The inputs of a view.
pub(super) struct Request<'a> {
    /// The working directory.
    pub(super) directory: PathBuf,
    /// The path that the shell used for the working directory (`PWD`).
    pub(super) came_by: Option<PathBuf>,
    /// The command's home.
    pub(super) home: Option<PathBuf>,
    /// The program, as given on the command line.
    pub(super) program: Option<&'a OsString>,
    /// The paths that the user shares.
    pub(super) shares: &'a [Share],
    /// Files that must be hidden, each with its folder.
    pub(super) hide: &'a [PathBuf],
    /// Programs that the gate starts: the command must not be able to change them.
    pub(super) programs: &'a [PathBuf],
    /// Files of the gate that the command may read.
    pub(super) copies: &'a [PathBuf],
}

/// Plans a view; `Err` names the path that cannot be hidden, and the remedy.
pub(super) fn plan(request: &Request<'_>) -> Result<View, String> {
    let directory = real(&request.directory)?;
    let home = request.home.as_deref().and_then(|home| real(home).ok());
    let home = home.filter(|home| home.is_dir() && home.parent().is_some());
    let copy = working_copy::of(&directory, home.as_deref());
    let homes: Vec<PathBuf> = home.iter().cloned().chain(home::of_account()).collect();
    check_working_copy(&copy.folder, &homes)?;
    check_way(request, &directory, home.as_deref())?;
    let hidden = Hidden::of(request.hide, request.programs);
    let mut plan = Planning::new(directory, hidden.folders());
    plan.home.clone_from(&home);
    plan.written = copy.all().map(Path::to_owned).collect();
    let written = request.shares.iter().filter(|share| !share.read_only);
    let written = written.filter_map(|share| real(&plan.view.directory.join(&share.path)).ok());
    plan.written.extend(written);
    plan.system();
    if let Some(home) = &home {
        plan.put(home, Content::Private(0o700));
    }
    if let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
        && runtime.starts_with("/run/")
    {
        plan.put(&runtime, Content::Private(0o700));
    }
    toolchain::add(&mut plan, home.as_deref(), request.program);
    plan.links(&request.directory);
    for folder in copy.all() {
        hidden.keep_apart(folder, true, "the working copy")?;
        plan.put(folder, Content::Writable);
    }
    for share in request.shares {
        plan.share(share, &hidden, &homes)?;
    }
    for file in request.copies.iter().filter(|file| file.is_file()) {
        plan.copy(file, Content::Copy);
    }
    settings::add(&mut plan, home.as_deref());
    plan.check_hidden(&hidden.files)?;
    sockets::cover(&mut plan.view, request.shares);
    home::note(&mut plan.view, &copy.folder);
    Ok(plan.view)
}

fn real(path: &Path) -> Result<PathBuf, String> {
    path.canonicalize()
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn check_working_copy(folder: &Path, homes: &[PathBuf]) -> Result<(), String> {
    let wide = NO_WORKING_COPY.iter().chain(&SYSTEM);
    let is_wide = wide.map(Path::new).any(|wide| wide == folder);
    let has_home = homes.iter().any(|home| home.starts_with(folder));
    if !is_wide && !has_home {
        return Ok(());
    }
    let what = if has_home {
        "holds your home"
    } else {
        "is not one project's"
    };
    Err(format!(
        "the command may write in its working folder, and {} {what}: start it in the folder of a \
         project (`cd PROJECT`)",
        folder.display()
    ))
}

/// Checks that the path the user gave leads to the folder in which the command works: an earlier
/// command can have replaced a folder by a link to another one.
fn check_way(request: &Request<'_>, directory: &Path, home: Option<&Path>) -> Result<(), String> {
    let came_by = request.came_by.as_deref().filter(|it| it.is_absolute());
    // An outdated PWD names another folder.
    let came_by = came_by.filter(|it| real(it).is_ok_and(|it| it == directory));
    match came_by.and_then(|it| planted::on_the_way(it, home)) {
        None => Ok(()),
        Some(link) => Err(format!(
            "the working folder was reached by the symbolic link {}, which an earlier command can \
             have put there; it leads to {1}: run `cd {1}`",
            link.display(),
            directory.display()
        )),
    }
}

/// A view that is being planned.
struct Planning {
    view: View,
    /// Folders in which the command writes: a link in them never decides what is shown.
    written: Vec<PathBuf>,
    /// The home without symbolic links.
    home: Option<PathBuf>,
}

impl Planning {
    fn new(directory: PathBuf, without: Vec<PathBuf>) -> Self {
        let places = BTreeMap::new();
        let view = View {
            places,
            without,
            directory,
            notes: Vec::new(),
        };
        Self {
            view,
            written: Vec::new(),
            home: None,
        }
    }

    /// Whether a path neither ends in nor leads through a folder in which the command writes.
    fn is_unwritten(&self, path: &Path) -> bool {
        let is_written = |at: &Path| self.written.iter().any(|folder| at.starts_with(folder));
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        !is_written(&real) && !path::links(path).any(|(at, _)| is_written(&at))
    }

    /// Whether no command, of this run or an earlier one, can have chosen the target of a path. If
    /// one can have, the path counts only if its target is shown already.
    fn is_fixed(&self, path: &Path) -> bool {
        let shown = || path.canonicalize().is_ok_and(|real| self.view.shows(&real));
        let planted = || planted::on_the_way(path, self.home.as_deref()).is_some();
        self.is_unwritten(path) && (!planted() || shown())
    }

    fn put(&mut self, path: &Path, content: Content) {
        self.view.places.insert(path.to_owned(), content);
    }

    /// Adds content if the path has none.
    fn offer(&mut self, path: &Path, content: Content) {
        self.view.places.entry(path.to_owned()).or_insert(content);
    }

    /// Adds the symbolic links on a path.
    fn links(&mut self, path: &Path) {
        for (at, to) in path::links(path) {
            if !self.view.shows(&at) {
                self.offer(&at, Content::Link(to));
            }
        }
    }

    fn copy(&mut self, file: &Path, content: Content) {
        let fixed = match content {
            // A copy of one of the gate's files.
            Content::Copy => self.is_unwritten(file),
            _ => self.is_fixed(file),
        };
        if !fixed {
            return;
        }
        self.links(file);
        if let Ok(file) = real(file)
            && !self.view.shows(&file)
        {
            self.offer(&file, content);
        }
    }

    /// Adds a read-only folder or file with programs.
    fn read_only(&mut self, path: &Path) {
        if !self.is_fixed(path) {
            return;
        }
        self.links(path);
        if let Ok(path) = real(path)
            && !self.view.shows(&path)
        {
            self.put(&path, Content::ReadOnly);
        }
    }

    fn system(&mut self) {
        for (path, mode) in PRIVATE {
            self.put(Path::new(path), Content::Private(mode));
        }
        for path in SYSTEM.iter().chain(&PARTS).map(Path::new) {
            match std::fs::read_link(path) {
                Ok(to) => self.put(path, Content::Link(to)),
                Err(_) if path.exists() => self.put(path, Content::ReadOnly),
                Err(_) => {}
            }
        }
        for path in ["/var/run", "/var/lock"].map(Path::new) {
            if let Ok(to) = std::fs::read_link(path) {
                self.put(path, Content::Link(to));
            }
        }
    }

    fn share(&mut self, share: &Share, hidden: &Hidden, homes: &[PathBuf]) -> Result<(), String> {
        let at = self.view.directory.join(&share.path);
        let path = real(&at).map_err(|error| format!("--share {error}"))?;
        let name = format!("--share {}", share.path.display());
        let home = self.home.as_deref();
        if let Some(link) = planted::on_the_way(&at, home) {
            return Err(format!(
                "{name} leads through the symbolic link {}, which an earlier command can have put \
                 there: name {}",
                link.display(),
                path.display()
            ));
        }
        let wide = path.parent().is_none() || homes.iter().any(|home| home.starts_with(&path));
        if wide {
            return Err(format!("{name} holds your home: share folders inside it"));
        }
        hidden.keep_apart(&path, !share.read_only, &name)?;
        self.links(&at);
        let content = if share.read_only {
            Content::ReadOnly
        } else {
            Content::Writable
        };
        self.put(&path, content);
        Ok(())
    }

    /// Checks that no read-only place is a hidden folder: a place cannot leave itself out.
    fn check_hidden(&self, hidden: &[PathBuf]) -> Result<(), String> {
        for file in hidden {
            let folder = if file.is_dir() {
                Some(file.as_path())
            } else {
                file.parent()
            };
            let Some(folder) = folder.filter(|folder| self.view.shows(folder)) else {
                continue;
            };
            let places = self.view.places.keys();
            let needed = places.filter(|place| place.starts_with(folder)).count();
            if needed > 0 || KEPT.iter().any(|kept| Path::new(kept) == folder) {
                return Err(format!(
                    "{} lies in {}, a folder that the command needs: move it to a folder of its \
                     own, e.g. /etc/tidegate/",
                    file.display(),
                    folder.display()
                ));
            }
        }
        Ok(())
    }
}

/// Folders inside system folders that programs require.
const KEPT: [&str; 8] = [
    "/etc/pki",
    "/etc/ssl",
    "/etc/ssl/certs",
    "/usr/bin",
    "/usr/lib",
    "/usr/local",
    "/usr/local/bin",
    "/usr/share",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(home: &Path, at: &Path, hide: &[PathBuf], shares: &[Share]) -> Result<View, String> {
        plan(&Request {
            directory: at.to_owned(),
            came_by: None,
            home: Some(home.to_owned()),
            program: None,
            shares,
            hide,
            programs: &[],
            copies: &[],
        })
    }

    fn share(path: &Path) -> [Share; 1] {
        [Share {
            path: path.to_owned(),
            read_only: true,
        }]
    }

    #[test]
    fn folders_that_hold_too_much_are_refused() {
        let folder = tempfile::TempDir::new().unwrap();
        let home = folder.path().canonicalize().unwrap();
        let web = home.join("web");
        std::fs::create_dir_all(web.join("keys")).unwrap();
        std::fs::create_dir_all(home.join("gate")).unwrap();
        std::fs::write(home.join("gate/tidegate.toml"), "").unwrap();
        std::fs::write(web.join("policy.toml"), "").unwrap();
        std::os::unix::fs::symlink(&home, web.join("out")).unwrap();
        let hide = [home.join("gate/tidegate.toml")];
        let view = planned(&home, &web, &hide, &[]).unwrap();
        assert_eq!(view.places.get(&web), Some(&Content::Writable));
        assert!(!view.shows(&home.join("gate")));
        for (at, hide, shares) in [
            (Path::new("/"), &hide[..], &[][..]),
            (&home, &hide, &[]),
            (Path::new("/tmp"), &hide, &[]),
            (&web, &[web.join("policy.toml")], &[]),
            (&web, &hide, &share(&home)),
            (&web, &hide, &share(&home.join("gate"))),
            (&web, &hide, &share(&web.join("out/gate"))),
            (&web, &hide, &share(Path::new("nowhere"))),
            (&web, &hide, &share(Path::new("/"))),
            (&web, &[PathBuf::from("/etc/hostname")], &[]),
        ] {
            let planned = planned(&home, at, hide, shares);
            assert!(planned.is_err(), "{at:?} {hide:?} {shares:?}");
        }
    }

    #[test]
    fn links_in_a_working_copy_choose_nothing_that_is_shown() {
        let folder = tempfile::TempDir::new().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for part in ["web", "keys", "tools"] {
            std::fs::create_dir_all(root.join(part)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("keys"), root.join("web/bin")).unwrap();
        std::os::unix::fs::symlink(root.join("web/bin"), root.join("tools/bin")).unwrap();
        let mut plan = Planning::new(root.join("web"), Vec::new());
        plan.written = vec![root.join("web")];
        for at in ["web", "web/bin", "tools/bin"] {
            plan.read_only(&root.join(at));
        }
        assert!(plan.view.places.is_empty(), "{:?}", plan.view.places);
        plan.read_only(&root.join("tools"));
        assert!(plan.view.shows(&root.join("tools")));
    }

    #[test]
    fn a_share_may_be_read_only() {
        let read: Share = "/a/b:ro".parse().unwrap();
        assert!(read.read_only && read.path == Path::new("/a/b"));
        assert!(!"/a/b".parse::<Share>().unwrap().read_only);
        assert!(":ro".parse::<Share>().is_err());
    }
}
