//! The command line: one file for each command.
//!
//! Results go to standard output, messages to standard error. The exit code is an [`Answer`].

mod admin;
mod answer;
mod approve;
mod ca;
mod check;
mod credential;
mod diff;
mod doctor;
mod edit;
mod env;
mod exceptions;
mod exec;
mod explain;
mod gate_owner;
mod health;
mod help;
mod init;
mod load;
mod log;
mod parents;
mod policy;
mod print;
mod promote;
mod records;
mod redteam;
mod replay;
mod request;
mod session;
mod shell;
mod test;
mod tree;
mod unseen;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use answer::Answer;

/// The one way out for a coding agent: a forward proxy that lets out only what a policy allows.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
#[command(
    after_help = "Exit codes: 0 yes, 1 no, 2 the input is wrong, 3 not contained, \
    4 something outside failed.\n`tidegate help` lists the chapters of the manual."
)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the proxy.
    Run(Run),
    /// Validate a configuration and summarise it.
    Check(check::Check),
    /// Run the examples of the rules and the trials.
    Test(test::Test),
    /// Play known attacks with real clients through a gate of its own.
    #[command(subcommand)]
    Redteam(redteam::Redteam),
    /// Decide recorded flows again by a policy, and list the verdicts that change.
    Replay(replay::Replay),
    /// Propose rules from the records of an observing tier or rule.
    Promote(promote::Promote),
    /// Explain the decision about a flow: one that you describe, or one on record.
    Explain(explain::Explain),
    /// Compare two policies: the flows that change, their callers and the rules.
    Diff(diff::Diff),
    /// Check whether this environment uses the proxy, and whether it has another way out.
    Doctor(doctor::Doctor),
    /// Print the variables that make clients use the proxy.
    Env(env::Env),
    /// Run a command behind a gate of its own, and list at the end the hosts that it reached.
    Exec(exec::Exec),
    /// Check whether a running gate accepts flows.
    Health(health::Health),
    /// Make and install the authority that signs certificates for inspected hosts.
    #[command(subcommand)]
    Ca(Box<ca::Ca>),
    /// Start, end and revoke sessions; the command for the hooks of an agent.
    #[command(subcommand)]
    Session(Box<session::Session>),
    /// List, show, allow, deny and revoke requests for approval.
    #[command(subcommand)]
    Approve(Box<approve::Approve>),
    /// File and follow requests for approval, as the agent.
    #[command(subcommand)]
    Request(Box<request::Request>),
    /// Grant and revoke exceptions at a running gate.
    #[command(subcommand)]
    Exception(exceptions::Exception),
    /// List the exceptions of a running gate, and retest those that have ended.
    Exceptions(exceptions::List),
    /// Pin working copies to their repositories, list the pins, and forget them.
    #[command(subcommand)]
    Workspace(workspace::Workspace),
    /// Hash a credential for use in a rule.
    #[command(subcommand)]
    Credential(credential::Credential),
    /// List, print and compare the policies that a gate had in force.
    #[command(subcommand)]
    Policy(policy::PolicyVerb),
    /// Verify that records are whole; print the key that signs them.
    #[command(subcommand)]
    Log(log::Log),
    /// Write the settings that make an agent use the gate.
    #[command(subcommand)]
    Init(init::Init),
    /// Print a chapter of the manual, or the options of a command.
    Help(help::Help),
    /// Print completions for a shell.
    Completions(Completions),
    /// Print the JSON Schema of a configuration file, for editors.
    Schema,
    /// Becomes a command in a jail; only `exec --jail` runs it.
    #[command(name = crate::jail::VERB, hide = true)]
    JailInit(JailInit),
}

#[derive(Debug, clap::Args)]
struct JailInit {
    /// The part of the jail that this process makes.
    #[arg(long, default_value = "namespaces")]
    stage: crate::jail::Stage,
    /// The program and its arguments.
    #[arg(last = true)]
    command: Vec<std::ffi::OsString>,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// The configuration [default: `$TIDEGATE_CONFIG`, /etc/tidegate/tidegate.toml,
    /// ~/.config/tidegate/tidegate.toml, the built-in policy].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A user, besides root and that of the gate, who may own the policy: no caller is that user.
    /// May be repeated.
    #[arg(long, value_name = "UID")]
    policy_owner: Vec<u32>,
}

#[derive(Debug, clap::Args)]
struct Completions {
    /// The shell to complete in.
    shell: clap_complete::Shell,
}

/// Runs the command in the arguments of this process.
pub fn main() -> ExitCode {
    match Args::try_parse() {
        Ok(args) => args.verb.perform(),
        Err(error) => {
            // clap reports help and version as errors: they go to standard output, with code 0.
            let _ = error.print();
            if error.use_stderr() {
                Answer::Wrong.into()
            } else {
                Answer::Yes.into()
            }
        }
    }
}

impl Verb {
    fn perform(self) -> ExitCode {
        match self {
            Self::JailInit(jail) => return crate::jail::enter(jail.stage, &jail.command),
            Self::Run(run) => return run.perform(),
            Self::Exec(exec) => return exec.perform(),
            Self::Check(check) => check.perform(),
            Self::Test(test) => test.perform(),
            Self::Redteam(redteam) => redteam.perform(),
            Self::Replay(replay) => replay.perform(),
            Self::Promote(promote) => promote.perform(),
            Self::Explain(explain) => explain.perform(),
            Self::Diff(diff) => diff.perform(),
            Self::Doctor(doctor) => doctor.perform(),
            Self::Env(env) => env.perform(),
            Self::Health(health) => health.perform(),
            Self::Ca(ca) => ca.perform(),
            Self::Session(session) => session.perform(),
            Self::Exception(exception) => exception.perform(),
            Self::Exceptions(list) => list.perform(),
            Self::Workspace(workspace) => workspace.perform(),
            Self::Approve(approve) => approve.perform(),
            Self::Request(request) => request.perform(),
            Self::Credential(credential) => credential.perform(),
            Self::Init(init) => init.perform(),
            Self::Log(log) => log.perform(),
            Self::Policy(policy) => policy.perform(),
            Self::Help(help) => help.perform(),
            Self::Completions(completions) => completions.perform(),
            Self::Schema => print_schema(),
        }
        .into()
    }
}

impl Run {
    fn perform(&self) -> ExitCode {
        let discovered = crate::app::discover(self.config.as_deref());
        crate::app::run_command(&discovered, &self.policy_owner)
    }
}

impl Completions {
    fn perform(&self) -> Answer {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Args::command(), "tidegate", &mut script);
        print::out(&String::from_utf8_lossy(&script));
        Answer::Yes
    }
}

fn print_schema() -> Answer {
    match crate::config::schema() {
        Ok(schema) => {
            print::json(&schema);
            Answer::Yes
        }
        Err(error) => {
            print::err(&format!("tidegate: the schema cannot be made: {error}\n"));
            Answer::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_verb_parses_as_it_is_documented() {
        for line in [
            "run",
            "run --config tidegate.toml",
            "check",
            "run --config tidegate.toml --policy-owner 1000 --policy-owner 1001",
            "check tidegate.toml --json",
            "check --config tidegate.toml --json",
            "check tidegate.toml --strict --format github",
            "check tidegate.toml --records decisions.jsonl decisions.jsonl.1.gz - --json",
            "test tidegate.toml --json",
            "test --config tidegate.toml",
            "test add --from 0195f3c2 --expect deny",
            "test add --from 0195f3c2 --expect allow --name x --records r --config a.toml --dry-run --json",
            "test --redteam",
            "test tidegate.toml --redteam --group ops --repo github.com/acme/web --json",
            "explain https://docs.rs/ --config a.toml --tier open --repo github.com/acme/web --json",
            "explain http://example.com/ --method POST --group ops --group dev",
            "explain example.com --user ana@acme.example",
            "redteam run",
            "redteam run tidegate.toml --tier standard --scenario gist --scenario worm --json",
            "redteam run --config tidegate.toml --group ops --repo github.com/acme/web",
            "replay",
            "replay decisions.jsonl decisions.jsonl.1.gz - --policy next.toml --json",
            "replay --config tidegate.toml",
            "promote decisions.jsonl --tier standard --rule docs --refused --config a.toml --write",
            "promote --json",
            "diff main..HEAD --path policy/tidegate.toml --require no-wider-in=restricted",
            "diff a.toml b --require narrower --json",
            "diff main:tidegate.toml tidegate.toml --format github",
            "env",
            "env --shell fish --proxy http://127.0.0.1:3128",
            "env --docker",
            "env --github",
            "env --json",
            "exec -- npm install",
            "exec --observe --summary end.json -- npm install",
            "exec --config a.toml --repo web --jail --json claude --resume",
            "doctor",
            "doctor --config a.toml --proxy http://127.0.0.1:3128 --json",
            "doctor --probe-tcp 127.0.0.1:9 --probe-dns 127.0.0.1:53 --report 127.0.0.1:3130",
            "env --channel mcp",
            "completions zsh",
            "schema",
            "help",
            "help policy",
            "help session start --json",
            "ca init --config a.toml --json",
            "ca init --cert ca.pem --key ca.key --config a.toml --force",
            "ca show --cert ca.pem",
            "ca install --bundle all.pem",
            "ca install --java --config a.toml",
            "ca install --java store.p12",
            "ca rotate --config a.toml",
            "credential hash --config a.toml --json",
            "env --config a.toml",
            "session start --repository https://forge.example/acme/web --ref main --commit abc",
            "session start --repo . --user ana --group ops --session 0195f3c2-7e1a-7bbb-8ccc-0123456789ab",
            "session start --agent claude-code --narrow-tier restricted --within model-api --env",
            "session start --bind-address 10.0.0.0/8 --bind-listener 10.0.0.1:3128 --for 8h --json",
            "session start --key gate.key --audience tidegate",
            "session revoke 0195f3c2-7e1a-7bbb-8ccc-0123456789ab --control unix:/run/control.sock",
            "session end",
            "session keygen gate.key",
            "session hook",
            "approve list --all --json",
            "approve show 0195f3c2-7e1a-7bbb-8ccc-0123456789ab --config a.toml",
            "approve allow 0123456789ab --for 1h --note why --control unix:/run/control.sock",
            "approve deny 0123456789ab --json",
            "approve revoke 0123456789ab",
            "request list --json",
            "request show 0195f3c2-7e1a-7bbb-8ccc-0123456789ab --proxy http://127.0.0.1:3128",
            "request file artifacts.example.net:8443 --reason why",
            "exception grant --host artifacts.example.net --for 1h --reason migration --tier standard",
            "exception revoke EXC-1 --reason done --control unix:/run/control.sock",
            "exceptions --retest --json",
            "exceptions --unused",
            "workspace pin",
            "workspace pin src/web --json",
            "workspace list --json",
            "workspace forget src/web --json",
            "init claude-code",
            "init claude-code --managed --write",
            "init claude-code --project --json",
            "init claude-code --user",
            "log verify decisions.jsonl decisions.jsonl.1 --public-key gate.pub --running --json",
            "log verify decisions.jsonl --through 1000",
            "log key --config a.toml",
            "policy list --config a.toml --json",
            "policy show 0cc0",
            "policy diff 0cc0 4be1 --json",
            "health --admin 127.0.0.1:3130",
            "health --admin unix:/run/tidegate/admin.sock --json",
        ] {
            let words = std::iter::once("tidegate").chain(line.split(' '));
            assert!(Args::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_is_not_documented_is_refused() {
        for line in [
            "",
            "env --docker --github",
            "check a.toml --config b.toml",
            "test a.toml --config b.toml",
            "test --group ops",
            "check --json --format github",
            "env --shell cmd",
            "explain",
            "health --admin x",
        ] {
            let words = std::iter::once("tidegate").chain(line.split_whitespace());
            assert!(Args::try_parse_from(words).is_err(), "{line}");
        }
    }
}
