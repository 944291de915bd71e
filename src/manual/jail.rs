//! # The jail
//!
//! A command in a jail has one way to the network, the gate, whether it uses proxy variables or not.
//! Linux, no root, no container, no packet filter.
//!
//! ```text
//! $ tidegate exec --config ~/.config/tidegate/tidegate.toml --jail --share ~/.claude -- claude
//! tidegate: jail: no other way out; writable: /home/ana/.claude, /home/ana/web
//! tidegate: shared: /home/ana/.claude
//! ```
//!
//! # What the jail does and does not contain
//!
//! | Promise | Mechanism | The kernel needs | Test |
//! |---|---|---|---|
//! | `network` | user and network namespace in which every address is local | user namespaces; Linux 5.6 | `jail::nothing_that_is_tried_from_inside_gets_out` |
//! | `files` | mount namespace with a root that is built for the command | mount namespaces; Linux 5.6 | `walls::files_of_the_user_do_not_exist_unless_they_are_shared` |
//! | `writes` | Landlock: writing below the writable folders only | Landlock ABI 2 (Linux 5.19) | `walls::inherited_descriptors_are_closed_and_none_is_opened_again_for_writing` |
//! | `processes` | PID namespace with its own /proc | PID namespaces and a /proc that is not masked | `walls::a_jail_leaves_no_process_behind` |
//! | `signals` | Landlock scope, or a session of its own without a terminal | Landlock ABI 6 (Linux 6.12), or no terminal | `walls::no_signal_leaves_and_the_gate_tells_the_end` |
//! | `ipc` | IPC namespace | IPC namespaces | `walls::shared_memory_outside_is_not_reachable` |
//! | `sockets` | sockets of processes outside are not in the view, or covered | none | `walls::sockets_outside_are_not_there_unless_shared` |
//! | `descriptors` | all but 0, 1, 2 closed; those checked, sockets become pipes | none | `walls::sockets_as_standard_streams_become_pipes_and_folders_are_refused` |
//! | `environment` | variables that name sockets outside are removed | none | `walls::variables_that_name_sockets_outside_are_removed` |
//! | `system-calls` | seccomp filter | seccomp | `walls::system_calls_that_no_namespace_holds_are_refused` |
//! | `privileges` | no capability, an empty bounding set, no new privileges | none | `jail::nothing_that_is_tried_from_inside_gets_out` |
//!
//! Where the kernel does not give `writes`, `processes`, `signals` or `ipc`, `exec --jail` names the
//! promise and the reason, and exits with 3. `--allow-missing=NAME` runs the command without that
//! promise: the first line says so, and the event `jail_started` of the records
//! (`tidegate.jail.missing`). Without the other promises there is no jail. Where user namespaces are
//! forbidden, the command is not run: exit code 3. Use Linux 6.12 or later for every promise.
//!
//! # The network
//!
//! - The gate accepts each connection of the command, sees the address that the command meant, and
//!   decides it like a CONNECT (`network.protocol.name` is `captured`). On port 80 it decides each plain
//!   request, and `Host` must name the destination of the connection. Ports 22, 80,
//!   443 and those that rules name are captured; any other refuses at once.
//! - The gate answers each DNS query of the command, whichever name server a program asks, over UDP or
//!   TCP, IPv4 or IPv6, and resolves nothing for it. A name that the policy could allow gets a placeholder
//!   address (`28.0.0.0/16`, `3000::/64`: agents refuse to fetch from special blocks); any other name does not exist, and leaves one record with
//!   `network.protocol.name` `dns`, which names the process that asked first.
//! - A refused client over TLS is sent an alert, over port 80 the usual answer; others are reset.
//!
//! # The files
//!
//! The gate builds the root of the command at its start. A path that is not listed here does not exist
//! inside, also after it is renamed outside:
//!
//! | Path | Inside |
//! |---|---|
//! | the working copy: the nearest git top level that this user owns, below the home; else the working directory | as outside, for reading and writing; with the git folder of a linked worktree |
//! | `/usr`, `/bin`, `/sbin`, `/lib*`, `/opt`, `/nix`, `/gnu` | read-only |
//! | `/etc` | read-only, the entries that exist at the start; for root without those that other users cannot read; `resolv.conf` and `nsswitch.conf` ask the gate |
//! | `/dev`, `/proc` | devices that store nothing (null, zero, full, random, urandom, tty), terminals of the jail's own; the processes of the jail |
//! | parts of `/sys` and `/var/lib`: processors, limits of containers, installed packages, authorities | read-only |
//! | `/tmp`, `/var/tmp`, `/run`, `/dev/shm`, the home, `CARGO_HOME` | empty, in memory, gone at the end |
//! | toolchains (`~/.cargo/bin`, `~/.rustup`, `~/.pyenv`, `~/.nvm`, `~/.local/bin`, …), folders of `PATH` with the `lib` beside a `bin`, the program itself | read-only |
//! | files of certificates that variables name (`SSL_CERT_FILE`, `NODE_EXTRA_CA_CERTS`, …) | a copy, unless there is a key in it |
//! | `~/.gitconfig`, `~/.npmrc`, `~/.cargo/config.toml` and the like | a copy, unless a line of it looks like a credential |
//! | the path of `--share PATH` | as outside |
//! | the path of `--share PATH:ro` | read-only |
//!
//! The configuration with everything that it includes and names, keys, records and sockets of the
//! gate are never inside, nor are the places where another run looks for a configuration
//! (`$TIDEGATE_CONFIG`, `/etc/tidegate`, `$XDG_CONFIG_HOME/tidegate`, `~/.config/tidegate`), whether a
//! file is there or not. The way to each leads through no folder in which the command writes, and the
//! programs of the gate lie in none. A share, a working folder or a `--summary` that a symbolic link
//! of an earlier command could lead elsewhere is refused: name the real path. Where one of them lies in the working copy or in a shared folder, or the
//! working directory is the home or no project's folder, `exec --jail` says what to move and exits
//! with 2. The first lines say where the command may write, which paths are shared and which settings
//! are left out; the shared paths are on record
//! (`tidegate.jail.shared` of the event `jail_started`).
//!
//! `--share` is for an agent's own settings (`--share ~/.claude`), caches (`--share ~/.npm`), a
//! socket that the command is to reach (`--share $SSH_AUTH_SOCK`), or another folder to write in.
//! Each share gives the command all files below it; a program outside that executes files of a shared
//! folder executes what the command wrote there.
//!
//! # What is left
//!
//! - Files of the working copy that are executed outside later: `.git/hooks` and `.git/config`
//!   (`core.fsmonitor`, filters, aliases), scripts of packages, `Makefile`, settings of editors,
//!   `node_modules/.bin`. They are not read-only inside: git, npm and pre-commit write them, and
//!   each has other files with the same effect. Look at changes before you run them, or give
//!   the command a clone of its own.
//!   In a linked worktree these are the hooks and settings of its main repository.
//! - Symbolic links count only in folders of the system, the home itself, `~/.config`, `~/.local` and
//!   the folders of toolchains; elsewhere an earlier command can have made them. What is shared there
//!   shares the right to make such links. A working folder that a link leads to is refused where
//!   `PWD` tells; a program that changes the folder without it is not seen.
//! - Sockets that a process outside makes or renames after the start, in the working copy or any
//!   other folder that exists inside. Named pipes there. At the start, the sockets in
//!   `/proc/net/unix` are covered, and those among 50,000 entries of the writable folders that do
//!   not refuse a connection; where there are more entries, the first lines say so.
//! - A shared terminal: the command can write every control sequence to it.
//! - Root: a command of root owns root's files in `/usr`, `/opt` and shared folders, and reads
//!   those that only root reads. Run agents as an ordinary user.
//! - Memory: `/tmp` and the home inside are in memory, each up to half of it; what a command uses is
//!   not limited otherwise.
//! - Timing, load and other side channels; defects of the kernel. User namespaces can be nested
//!   inside (browsers need them), which gives a command more of the kernel to attack.
//! - Where `writes` is missing, a file that is the standard input can be opened again for writing.
//! - Processes of the same user outside the jail: they can end the gate, and with it the jail. They
//!   cannot trace the gate, or read its memory, variables and descriptors. They can enter the network
//!   of the jail (`nsenter -U -n -t PID`) and listen there for the command: the watch looks only at
//!   processes below the first one of the jail.
//!
//! A file that is shared by itself cannot be renamed or replaced inside (`EBUSY`): share its folder
//! for programs that write a new file and rename it. Where it is replaced outside, the command keeps
//! the old one. Neither ends the jail; a mount that is added, widened or taken away does.
//!
//! Descriptors other than 0, 1 and 2 are closed: `<(…)` of a shell and the job server of make do not
//! reach into the jail. Mounts cannot be made inside, so containers cannot be started there.
