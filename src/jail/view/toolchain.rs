//! Programs outside the folders of the system: toolchains in the home, folders of the PATH.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Content, Planning};

/// Toolchains in a home, read-only; none of these folders holds credentials.
pub(super) const IN_HOME: [&str; 24] = [
    ".asdf",
    ".bun/bin",
    ".cargo/bin",
    ".deno/bin",
    ".dotnet",
    ".fnm",
    ".ghcup/bin",
    ".juliaup",
    ".local/bin",
    ".local/lib",
    ".local/pipx",
    ".local/share/fnm",
    ".local/share/mise",
    ".local/share/pipx",
    ".local/share/pnpm",
    ".local/share/uv",
    ".npm-global",
    ".nvm",
    ".pixi",
    ".pyenv",
    ".rbenv",
    ".rustup",
    ".sdkman/candidates",
    ".volta",
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
/// What lies beside a `bin` of the PATH and belongs to its programs.
const BESIDE_BIN: [&str; 5] = ["include", "lib", "lib64", "libexec", "pyvenv.cfg"];
/// Links in a folder of the PATH that are followed.
const MAX_LINKS: usize = 1_000;

pub(super) fn add(plan: &mut Planning, home: Option<&Path>, program: Option<&OsString>) {
    let mut tools = Tools { plan, home };
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
}

struct Tools<'a> {
    plan: &'a mut Planning,
    home: Option<&'a Path>,
}

impl Tools<'_> {
    /// A folder that may be shown: none that holds the home, or a folder of what is hidden.
    fn folder(&mut self, folder: &Path) {
        let Ok(real) = folder.canonicalize() else {
            return;
        };
        let holds = |other: &Path| other.starts_with(&real);
        let hidden = self.plan.view.without.iter().any(|hidden| holds(hidden));
        let wide = real.parent().is_none() || self.home.is_some_and(holds);
        if real.is_dir() && !wide && !hidden {
            self.plan.read_only(folder);
        }
    }

    fn file(&mut self, file: &Path) {
        if file.is_file() {
            self.plan.read_only(file);
        }
    }

    /// Programs of cargo, and a folder of its own for what it downloads: what is in the user's
    /// holds credentials.
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
        if let Some(prefix) = real.parent().filter(|_| real.ends_with("bin")) {
            for name in BESIDE_BIN {
                let beside = prefix.join(name);
                if beside.is_file() {
                    self.file(&beside);
                } else {
                    self.folder(&beside);
                }
            }
        }
        self.targets(&real);
    }

    /// What programs of a folder are links to, e.g. below ~/.local/share.
    fn targets(&mut self, folder: &Path) {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let links = entries.filter(|entry| entry.file_type().is_ok_and(|is| is.is_symlink()));
        let links: Vec<_> = links.take(MAX_LINKS).map(|link| link.path()).collect();
        for link in links {
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
            let tool = below.and_then(|below| below.iter().next());
            match (share.as_deref(), tool) {
                (Some(share), Some(tool)) if tool != "keyrings" => self.folder(&share.join(tool)),
                _ if target.is_file() => self.file(&target),
                _ => {}
            }
            self.plan.links(&link);
        }
    }

    /// The program, as the shell finds it.
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
