//! The programs allowed for a gate whose command has the same user: one program of root with plain
//! arguments. An interpreter runs its arguments or files of the user, so its owner does not protect
//! it.

use std::path::Path;

/// Programs that run other programs or texts. A version at the end of a name (`python3.12`) is
/// ignored.
const INTERPRETERS: [&str; 68] = [
    "ash", "awk", "bash", "bun", "busybox", "chroot", "csh", "dash", "deno", "doas", "ed", "emacs",
    "env", "ex", "expect", "fish", "flock", "gawk", "gdb", "git", "gmake", "ionice", "java",
    "julia", "ksh", "ld.so", "lua", "luajit", "m4", "make", "mawk", "mksh", "nawk", "nice", "node",
    "nodejs", "nohup", "npm", "npx", "nsenter", "nvim", "parallel", "perl", "php", "pip", "pwsh",
    "pypy", "python", "rbash", "rsync", "ruby", "runuser", "script", "sed", "setpriv", "setsid",
    "sh", "ssh", "su", "sudo", "tar", "tclsh", "timeout", "toybox", "unshare", "vim", "xargs",
    "zsh",
];
/// Prefixes of further such names.
const BEGINNINGS: [&str; 4] = ["find", "ld-linux", "ld-musl", "systemd-run"];

/// Whether a program, by its name or by the name of its link target, runs its arguments.
pub(super) fn is_interpreter(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let version = |c: char| c.is_ascii_digit() || ['.', '-'].contains(&c);
    let stem = name.trim_end_matches(version);
    let is = |known: &str| name == known || stem == known;
    INTERPRETERS.iter().any(|known| is(known))
        || BEGINNINGS.iter().any(|start| name.starts_with(start))
}

/// Whether an argument names no file except `/` itself and has no shell syntax.
pub(super) fn is_plain(word: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "-_.,:=@+".contains(c);
    !word.is_empty() && word != ".." && word.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_known_by_their_names_and_versions() {
        for name in [
            "dash",
            "env",
            "python3",
            "python3.12",
            "perl5.36.0",
            "find",
            "lua5.4",
            "bash-5",
        ] {
            assert!(is_interpreter(&Path::new("/usr/bin").join(name)), "{name}");
        }
        assert!(is_interpreter(Path::new("/lib64/ld-linux-x86-64.so.2")));
        for name in ["proxy-token", "pass", "echo", "token2"] {
            assert!(!is_interpreter(&Path::new("/usr/bin").join(name)), "{name}");
        }
    }

    #[test]
    fn plain_words_name_no_file_and_are_no_script() {
        for word in ["--user=ana", "proxy.acme.example:3128", "-n", "ana@acme"] {
            assert!(is_plain(word), "{word}");
        }
        for word in [
            "~/x", "a/b", "--x=~ana", "exec x", "$(x)", "", "a;b", "..", "--f=/x",
        ] {
            assert!(!is_plain(word), "{word}");
        }
    }
}
