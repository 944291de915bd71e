//! Programs outside the system folders: toolchains in the home, folders of the PATH.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Content, Planning};

/// Toolchains in a home, read-only, without [`SECRETS`]. If a tool keeps credentials beside its
/// programs, only the folders of the programs are listed.
pub(super) const IN_HOME: [&str; 36] = [
    ".asdf",
    ".bun/bin",
    ".cargo/bin",
    ".deno/bin",
    ".dotnet/host",
    ".dotnet/packs",
    ".dotnet/sdk",
    ".dotnet/sdk-manifests",
    ".dotnet/shared",
    ".dotnet/store",
    ".dotnet/templates",
    ".dotnet/tools",
    ".fnm",
    ".ghcup/bin",
    ".juliaup",
    ".local/bin",
    ".local/lib",
    ".local/pipx",
    ".local/share/fnm",
    ".local/share/mise/installs",
    ".local/share/mise/plugins",
    ".local/share/mise/shims",
    ".local/share/pipx",
    ".local/share/pnpm",
    ".local/share/uv/python",
    ".local/share/uv/tools",
    ".npm-global/bin",
    ".npm-global/lib",
    ".nvm",
    ".pixi/bin",
    ".pixi/envs",
    ".pyenv",
    ".rbenv",
    ".rustup",
    ".sdkman/candidates",
    ".volta",
];
/// Credential files in the folder of a toolchain; `*` is any one name.
const SECRETS: [&str; 17] = [
    ".condarc",
    ".netrc",
    ".npmrc",
    "corefx",
    "credentials",
    "credentials.toml",
    "etc/npmrc",
    "installs/node/*/etc/npmrc",
    "installs/nodejs/*/etc/npmrc",
    "maven/*/conf/settings.xml",
    "node-versions/*/installation/etc/npmrc",
    "node/*/etc/npmrc",
    "pip.conf",
    "tools/image/node/*/etc/npmrc",
    "venvs/*/pip.conf",
    "versions/*/pip.conf",
    "versions/node/*/etc/npmrc",
];
/// Variables that name the folder of a toolchain.
const VARIABLES: [&str; 14] = [
    "ANDROID_HOME",
    "ASDF_DATA_DIR",
    "ASDF_DIR",
    "BUN_INSTALL",
    "CONDA_PREFIX",
    "GOROOT",
    "JAVA_HOME",
    "NVM_DIR",
    "PYENV_ROOT",
    "RBENV_ROOT",
    "RUSTUP_HOME",
    "VIRTUAL_ENV",
    "VOLTA_HOME",
    "SDKMAN_CANDIDATES_DIR",
];
/// Entries beside a `bin` of the PATH that belong to its programs.
const BESIDE_BIN: [&str; 5] = ["include", "lib", "lib64", "libexec", "pyvenv.cfg"];
/// Maximum number of links in a folder of the PATH that are followed.
const MAX_LINKS: usize = 1_000;

pub(super) fn add(plan: &mut Planning, home: Option<&Path>, program: Option<&OsString>) {
    let mut tools = Tools {
        plan,
        home,
        secrets: Vec::new(),
    };
    if let Some(home) = home {
        for name in IN_HOME {
            tools.folder(&home.join(name));
        }
    }
    for name in VARIABLES {
        if let Some(folder) = std::env::var_os(name) {
            tools.folder(Path::new(&folder));
        }
    }
    tools.cargo();
    let path = std::env::var_os("PATH").unwrap_or_default();
    for folder in std::env::split_paths(&path).filter(|folder| folder.is_absolute()) {
        tools.path_folder(&folder);
    }
    if let Some(program) = program.and_then(|program| tools.find(program)) {
        tools.file(&program);
    }
    if let Ok(own) = std::env::current_exe() {
        tools.file(&own);
    }
    let secrets = tools.secrets;
    plan.view.without.extend(secrets);
}

/// Collects the files below a folder whose path matches the pattern.
fn matching(folder: &Path, pattern: &[&str], found: &mut Vec<PathBuf>) {
    match pattern {
        [] => found.push(folder.to_owned()),
        ["*", rest @ ..] => {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            for entry in entries.take(MAX_LINKS) {
                matching(&entry.path(), rest, found);
            }
        }
        [name, rest @ ..] => {
            let at = folder.join(name);
            if at.symlink_metadata().is_ok() {
                matching(&at, rest, found);
            }
        }
    }
}

/// Returns how many levels above a program its own folder is; `below` is its path below
/// ~/.local/share. `None` if that folder is the folder of the whole tool, which may contain
/// credentials: then only the file of the program is shown.
fn of_program(below: &Path) -> Option<usize> {
    let parts: Vec<_> = below.iter().collect();
    let in_bin = parts.iter().rev().nth(1).is_some_and(|part| *part == "bin");
    match parts.len() {
        0..=2 => None,
        // TOOL/…/VERSION/bin/PROGRAM.
        4.. if in_bin => Some(2),
        // TOOL/VERSION/PROGRAM, TOOL/bin/PROGRAM.
        _ => Some(1),
    }
}

struct Tools<'a> {
    plan: &'a mut Planning,
    home: Option<&'a Path>,
    /// Credential files that are left out of toolchains.
    secrets: Vec<PathBuf>,
}

impl Tools<'_> {
    /// Shows a folder, unless it contains the home or a hidden folder.
    fn folder(&mut self, folder: &Path) {
        let Ok(real) = folder.canonicalize() else {
            return;
        };
        let holds = |other: &Path| other.starts_with(&real);
        let hidden = self.plan.view.without.iter().any(|hidden| holds(hidden));
        let wide = real.parent().is_none() || self.home.is_some_and(holds);
        if real.is_dir() && !wide && !hidden {
            self.plan.read_only(folder);
            for pattern in SECRETS {
                let parts: Vec<&str> = pattern.split('/').collect();
                matching(&real, &parts, &mut self.secrets);
            }
        }
    }

    fn file(&mut self, file: &Path) {
        if file.is_file() {
            self.plan.read_only(file);
        }
    }

    /// Shows the programs of cargo, with a new folder for its downloads: the user's folder contains
    /// credentials.
    fn cargo(&mut self) {
        let Some(folder) = std::env::var_os("CARGO_HOME").map(PathBuf::from) else {
            return;
        };
        let named = folder;
        let Ok(folder) = named.canonicalize() else {
            return;
        };
        let own = |home: &Path| home.starts_with(&folder) || folder.starts_with(home);
        if folder.parent().is_none() || !self.plan.is_fixed(&named) {
            return;
        }
        if !self.home.is_some_and(own) {
            self.plan.put(&folder, Content::Private(0o755));
        }
        self.folder(&folder.join("bin"));
        self.plan
            .copy(&folder.join("config.toml"), Content::Settings);
    }

    fn path_folder(&mut self, folder: &Path) {
        self.folder(folder);
        let Ok(real) = folder.canonicalize() else {
            return;
        };
        if self
            .plan
            .view
            .nearest(&real)
            .is_none_or(|(at, _)| at != real)
        {
            return;
        }
        self.beside_bin(&real);
        self.targets(&real);
    }

    fn beside_bin(&mut self, bin: &Path) {
        let Some(prefix) = bin.parent().filter(|_| bin.ends_with("bin")) else {
            return;
        };
        for name in BESIDE_BIN {
            let beside = prefix.join(name);
            if beside.is_file() {
                self.file(&beside);
            } else {
                self.folder(&beside);
            }
        }
    }

    /// Shows the folder of a program, `above` levels above the program.
    fn beside(&mut self, target: &Path, above: usize) {
        if let Some(folder) = target.ancestors().nth(above) {
            self.folder(folder);
            self.beside_bin(folder);
        }
    }

    /// Shows the targets of the links in a folder of programs, e.g. below ~/.local/share.
    fn targets(&mut self, folder: &Path) {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let links = entries.filter(|entry| entry.file_type().is_ok_and(|is| is.is_symlink()));
        let links: Vec<_> = links.take(MAX_LINKS).map(|link| link.path()).collect();
        // A link to an entry of the same folder leads to a file that is shown, or to another of
        // these links.
        let leads_out = |link: &PathBuf| match std::fs::read_link(link) {
            Ok(to) => to.parent().is_some_and(|folder| folder != Path::new("")),
            Err(_) => false,
        };
        for link in links.into_iter().filter(leads_out) {
            if !self.plan.is_fixed(&link) {
                continue;
            }
            let Ok(target) = link.canonicalize() else {
                continue;
            };
            let share = self.home.map(|home| home.join(".local/share"));
            let below = share
                .as_deref()
                .and_then(|share| target.strip_prefix(share).ok());
            match below.and_then(of_program) {
                Some(program) => self.beside(&target, program),
                None if target.is_file() => self.file(&target),
                None => {}
            }
            self.plan.links(&link);
        }
    }

    /// Finds the program as the shell does.
    fn find(&self, program: &OsString) -> Option<PathBuf> {
        let at = Path::new(program);
        if at.components().count() > 1 {
            return Some(self.plan.view.directory.join(at));
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places = std::env::split_paths(&path).map(|folder| folder.join(at));
        places.find(|place| place.is_absolute() && place.is_file())
    }
}
