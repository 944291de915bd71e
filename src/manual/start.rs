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
//! One command instead of all that:
//!
//! ```sh
//! tidegate exec -- claude             # a gate for this session alone; observes without a policy
//! tidegate exec --config tidegate.toml --jail -- npm install
//! tidegate exec --join http://127.0.0.1:3128 -- npm install   # behind a gate that runs
//! ```
//!
//! `exec` reads repository, branch and commit from the working copy, whose word can make the tier only
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
