//! Point a shell, a container or a job at a gate.
//!
//! ```sh
//! tidegate run                       # 127.0.0.1:3128, built-in policy, records under ~/.local/state
//! eval "$(tidegate env)"             # in the shell that the agent starts from
//! ```
//!
//! `tidegate env` prints the variables that make curl, git, npm, pip, cargo, Go, Java and Node use
//! the proxy, each with the value that tool understands; with `--config FILE` of a gate that inspects,
//! also those that make them trust its authority. `--github` writes the form that
//! `$GITHUB_ENV` takes, `--docker` the form of an env file.
//!
//! Node's own `fetch` and `https` take them from 22.21 and 24.0 on; earlier ones ignore
//! `NODE_USE_ENV_PROXY` and try the name themselves (`ENOTFOUND`). npm works with all of them. git
//! over SSH (`git@…`) cannot use an HTTP proxy: clone by https.
//!
//! curl, git and cargo show only the number of a refusal, many others its text with a flow id.
//! `tidegate explain ID`, with `--config FILE` where the gate has one, says what was refused, and why.
//!
//! A program that ignores the variables goes past the proxy. `exec --jail` contains one command; an
//! internal network whose only other member is the gate contains a machine (`deploy/compose.yaml`).
//!
//! To write a configuration, begin with one of `config/solo.toml`, `config/team.toml` and
//! `config/ci.toml`, or with `config/inspect.toml` to look inside TLS
//! ([`interception`](super::interception)); `config/tidegate.toml` names every key with its default.
//!
//! ```sh
//! tidegate check tidegate.toml       # every finding at once, with file, line and column
//! tidegate test tidegate.toml        # the examples of the rules and the trials
//! tidegate explain https://docs.rs/  # what would happen, and why
//! tidegate run --config tidegate.toml
//! ```
//!
//! # Which configuration
//!
//! Every command finds its configuration in the same order, and says which one it uses (on standard
//! error; not with `--json`, and not where `--config` says it already):
//!
//! 1. `--config FILE` (`check` and `test` also take `FILE` alone)
//! 2. `$TIDEGATE_CONFIG`
//! 3. `/etc/tidegate/tidegate.toml`
//! 4. `$XDG_CONFIG_HOME/tidegate/tidegate.toml`, or `~/.config/tidegate/tidegate.toml`
//! 5. the built-in policy, which `run` and `exec` both enforce
//!
//! A user's file never replaces the file in `/etc`: if the file in `/etc` cannot be read, that is an
//! error. `--config` and `$TIDEGATE_CONFIG` do replace it, and the command says so (`policy a.toml
//! (from TIDEGATE_CONFIG), not /etc/tidegate/tidegate.toml`). A process that can set a variable for your
//! next `tidegate` could as well start another program in its place. So a gate that agents must not
//! configure runs as another user, or is the gate of `exec --jail`, which reads its configuration before
//! the command exists. A configuration in the working copy is used only where you name it.
//!
//! # Wall or advice
//!
//! | how it runs | what its callers can do to the policy |
//! |---|---|
//! | `exec --jail` | Nothing: the policy is read once, before the command exists, and the files of the policy do not exist in the jail ([`jail`](super::jail)). |
//! | `exec` | Nothing during its run: the policy is read once. Without a jail the command can change the files for the next run, end the gate, or go past it. |
//! | `run` as a service (`deploy/systemd`, the image) | Nothing: `run` refuses files that a user other than root or the service's can change ([`operations`](super::operations)). |
//! | `run` as you | Everything that you can do: the policy is **advice** to your processes, and `run` says so. |
//!
//! A user id below 1000, one of systemd's dynamic users (61184 to 65519) or of images (65532 to
//! 65534) counts as a service's, any other as a person's. Where a caller on this host turns out to
//! have the gate's own user id, the gate says once that its policy is advice to that caller, whichever
//! user it is (it looks at one new connection a second). Two commands make the policy a wall, which its
//! callers cannot change: `tidegate exec --jail -- COMMAND`, or
//! `sudo systemctl enable --now tidegate.socket tidegate.service`.
//!
//! # One command
//!
//! `exec` starts a gate for one command:
//!
//! ```sh
//! tidegate exec -- claude             # a gate for this session alone
//! tidegate exec --observe -- claude   # lets pass what the rules would refuse, and shows it
//! tidegate exec --config tidegate.toml --jail -- npm install
//! tidegate exec --join http://127.0.0.1:3128 -- npm install   # behind a gate that runs
//! ```
//!
//! `--observe` does not lift the floor: metadata, link-local and private addresses, and malformed
//! requests, are refused all the same.
//!
//! `exec` reads its configuration once, with all files that it names. Changes of these files have no
//! effect until the command has ended. Two things are read again: a `credential-file`, after its
//! parent proxy refused the credential, so that an operator can rotate it (and only while no user but
//! root and you can write to the file); and the addresses of this machine, which the gate never dials.
//! `exec` runs a `credential-command` only if root owns it, because your command could rewrite a
//! program of yours. `--summary FILE` writes the summary as JSON to a file or descriptor
//! (`/dev/fd/3`); with `--json` it is the last line on standard error.
//!
//! `exec` reads repository, branch and commit from the working copy, starts a session, sets every
//! variable, and prints at the end which flows were allowed, asked and refused. A repository that only
//! the working copy names can make the tier stricter, never looser ([`identity`](super::identity)).
//! Only processes below the command can use its gate: elsewhere its token is refused. The exit code is
//! that of the command (128 and the signal that ended it; 126 and 127 as a shell has them). With
//! `--jail` the connections of a program that ignores the variables are captured and decided the same
//! way; where no jail can be made, `exec` runs nothing and exits with 3.
//!
//! `TIDEGATE_ADMIN` is the admin address for calls of the session (`POST /v1/sessions` with
//! `TIDEGATE_TOKEN` starts a child session with the same rights or fewer). The token is valid for 30 days, whatever
//! `identity.session.longest` says: its key is in the memory of this gate and ends with it.
