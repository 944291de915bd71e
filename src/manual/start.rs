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
//! over SSH (`git@…`) knows no HTTP proxy: clone by https.
//!
//! curl, git and cargo show only the number of a refusal, many others its text with a flow id.
//! `tidegate explain ID`, with `--config FILE` where the gate has one, says what it was about.
//!
//! What a variable cannot do: a program that ignores it goes past the proxy. Containment is the
//! network's: an internal network whose only other member is the gate (`deploy/compose.yaml`).
//!
//! With a configuration: begin with one of `config/solo.toml`, `config/team.toml` and
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
//! A file in `/etc` is never passed over for a user's: one that cannot be read is an error. The first
//! two come before it and say that they do (`policy a.toml (from TIDEGATE_CONFIG), not
//! /etc/tidegate/tidegate.toml`). They are no way round a wall: a process that may set a variable for
//! your next `tidegate` may start another program in its place. A gate that agents must not
//! configure runs as another user, or is the one of `exec --jail`, read before its command exists.
//! A configuration in the working copy is never used unless it is named.
//!
//! # Wall or advice
//!
//! | how it runs | what its callers can do to the policy |
//! |---|---|
//! | `exec --jail` | Nothing to that of its run: it is read once, before the command exists, and never followed. The next run reads the files as they are then ([`jail`](super::jail) says which the command sees). |
//! | `exec` | Nothing to that of its run by its files. Without a jail the command can end the gate, or go past it. |
//! | `run` as a service (`deploy/systemd`, the image) | Nothing, while the files are root's or the service's: `run` refuses others ([`operations`](super::operations)). |
//! | `run` as you | Everything that you can: the policy is **advice** to your processes, and `run` says so. |
//!
//! A user id below 1000, one of systemd's dynamic users (61184 to 65519) or of images (65532 to
//! 65534) counts as a service's, any other as a person's. Where a caller on this host turns out to
//! have the gate's own user id, the gate says once that its policy is advice to that caller, whichever
//! user it is (it looks at one new connection a second). Two commands make it a wall:
//! `tidegate exec --jail -- COMMAND`, or `sudo systemctl enable --now tidegate.socket tidegate.service`.
//!
//! # One command
//!
//! One command instead of all that:
//!
//! ```sh
//! tidegate exec -- claude             # a gate for this session alone
//! tidegate exec --observe -- claude   # refuses nothing, and shows what would be refused
//! tidegate exec --config tidegate.toml --jail -- npm install
//! tidegate exec --join http://127.0.0.1:3128 -- npm install   # behind a gate that runs
//! ```
//!
//! `exec` reads its configuration once, with all files that it names, and keeps to it until the
//! command has ended: what becomes of the files meanwhile changes nothing. (Two things are read again:
//! the file of a `credential-file`, where its parent refuses what it said, so that an operator can
//! rotate it, and only while nobody but root and you can write to it; and the addresses of this
//! machine, which the gate never dials.) A `credential-command` has to be root's here: your command
//! could rewrite yours. `--summary FILE` writes the summary as JSON to a file or descriptor
//! (`/dev/fd/3`); with `--json` it is the last line on standard error.
//!
//! It reads repository, branch and commit from the working copy, whose word can make the tier only
//! stricter ([`identity`](super::identity) says what is evidence), starts a session, sets every
//! variable, and says at the end what was allowed, asked and refused. Only processes below the
//! command can use its gate: a stolen token of it is worth nothing elsewhere. The exit code is the
//! command's own (128 and the signal that ended it; 126 and 127 as a shell has them). With `--jail`
//! a program that ignores the variables is captured and judged the same way; where no jail can be
//! made, nothing is run and the exit code is 3.
//!
//! `TIDEGATE_ADMIN` is where its session speaks for itself (`POST /v1/sessions` with
//! `TIDEGATE_TOKEN` hands on less than it has). The token holds for 30 days, whatever
//! `identity.session.longest` says: its key is in the memory of this gate and ends with it.
