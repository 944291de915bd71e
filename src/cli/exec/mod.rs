//! `tidegate exec`: runs a command behind a gate of its own, with direct access to the terminal.

mod agent;
mod child;
mod claude;
mod codex;
mod copilot;
mod gemini;
mod hidden;
mod jailed;
mod joined;
mod joined_trust;
mod loopback;
mod opencode;
mod own_file;
mod summary;
mod summary_file;
mod workplace;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::app::{Plan, Running};
use crate::config::{self, AdminAddress, Listener, Owners};
use crate::diag;
use crate::dial::Programs;
use crate::gate::{Gate, Ground, SessionRequest, Started, session_facts};
use crate::identity::{AgentProcess, Evidence, Family, Grant, Program};
use crate::jail::{Promise, Share};
use crate::policy::{self, Catalogue};
use crate::proxy::{self, Bound, Tenant};
use crate::record::{Asker, Event, Tally};
use crate::tls;

use super::env::Proxy;
use super::{Answer, admin, load, print};

use agent::{Agent, Recognised};
use child::Child;
use summary_file::SummaryFile;
use workplace::FolderEvidence;

pub(super) use opencode::text as opencode_plugin;
pub(super) use own_file::SIGN as PLUGIN_SIGN;

/// The lifetime of a command's token: sessions of agents stay open for days.
const LIFETIME: Duration = Duration::from_hours(24 * 30);
/// The first line of an observed command.
const OBSERVING: &str =
    "tidegate: OBSERVING: the rules refuse nothing; the end shows what they would refuse\n";

/// The end of the note if a script starts Claude Code and its hooks cannot be added.
const WITHOUT_HOOKS: &str = "Without them tool calls are not on record, and the agent is not told what \
    is refused. Write them once: tidegate init claude-code --launched --write\n";

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(super) struct Exec {
    /// The configuration [default: `$TIDEGATE_CONFIG`, /etc/tidegate/tidegate.toml,
    /// ~/.config/tidegate/tidegate.toml, the built-in policy]. It is read once, before the command
    /// begins.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The working copy whose repository the session has [default: the current folder].
    #[arg(long, value_name = "PATH")]
    repo: Option<PathBuf>,
    /// The session to join, a UUID [default: a new one].
    #[arg(long, value_name = "ID")]
    session: Option<Uuid>,
    /// Let flows pass that the rules would refuse, and list them at the end. The floor still refuses
    /// metadata, link-local and private addresses.
    #[arg(long)]
    observe: bool,
    /// Run the command in a jail whose only way to the network is the gate (Linux).
    #[arg(long)]
    jail: bool,
    /// Make a file, folder or socket reachable in the jail; `:ro`: for reading only. May be
    /// repeated.
    #[arg(long, value_name = "PATH[:ro]", requires = "jail")]
    share: Vec<Share>,
    /// Run the jailed command even if this kernel cannot keep that promise of the jail. May be
    /// repeated.
    #[arg(long, value_name = "PROMISE", requires = "jail")]
    allow_missing: Vec<Promise>,
    /// Join a running gate: http://HOST:PORT, as clients reach it. The policy of that gate decides,
    /// its log has the records, and its `identity.session.local` sets the trust of the session.
    #[arg(long, value_name = "URL", conflicts_with_all = ["config", "jail", "json", "observe", "summary"])]
    #[arg(value_parser = Proxy::parse_short)]
    join: Option<Proxy>,
    /// The control socket of that gate: unix:PATH [default: where a gate without configuration has
    /// it].
    #[arg(long, env = "TIDEGATE_CONTROL", value_name = "ADDRESS")]
    #[arg(value_parser = admin::parse_address)]
    control: Option<AdminAddress>,
    /// The admin listener of that gate, for hooks [default: 127.0.0.1:3130].
    #[arg(long, env = "TIDEGATE_ADMIN", value_name = "ADDRESS")]
    #[arg(value_parser = admin::parse_address)]
    admin: Option<AdminAddress>,
    /// The agent that the command starts [default: recognised by the name of its program, also behind
    /// a wrapper (`npx`, `env`, …) or in a script of a shell].
    #[arg(long, value_name = "NAME")]
    agent: Option<Agent>,
    /// Set the variables that switch off the telemetry of agents.
    #[arg(long)]
    no_telemetry: bool,
    /// Write the summary as JSON: the last line on standard error.
    #[arg(long)]
    json: bool,
    /// Write the summary as JSON to this file or descriptor (/dev/fd/3), beside the one for people.
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    #[arg(allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Everything that is read and opened before the command exists.
struct Start {
    plan: Plan,
    catalogue: Catalogue,
    owners: Owners,
    summary: Option<SummaryFile>,
}

/// The sockets of the gate for a command without a jail.
struct Front {
    socket: TcpListener,
    address: SocketAddr,
    admin: TcpListener,
    admin_address: SocketAddr,
}

impl Front {
    fn bind() -> anyhow::Result<Self> {
        let socket = proxy::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = socket.local_addr()?;
        let admin = proxy::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let admin_address = admin.local_addr()?;
        Ok(Self {
            socket,
            address,
            admin,
            admin_address,
        })
    }

    fn place(&self) -> Place {
        Place {
            proxy: self.address,
            admin: self.admin_address,
        }
    }

    fn serve(self, running: &Running, tenant: Tenant) {
        running.serve_admin(self.admin);
        running.serve(vec![Bound {
            socket: self.socket,
            listener: Arc::new(Listener::at(self.address)),
            tenant: Some(tenant),
        }]);
    }
}

/// The addresses of the gate for the command.
#[derive(Clone, Copy)]
struct Place {
    proxy: SocketAddr,
    admin: SocketAddr,
}

/// The session of the command.
struct Session {
    started: Started,
    grant: Arc<Grant>,
    family: Arc<Family>,
    channel: &'static str,
    tally: Arc<Tally>,
}

impl Exec {
    /// Returns the command's exit code; 2, 3 or 4 if it was not run, 126 and 127 as in a shell.
    pub(super) fn perform(mut self) -> ExitCode {
        if let Some(repo) = self.repo.as_ref().filter(|repo| !repo.is_dir()) {
            print::err(&format!("tidegate: --repo {}: no folder\n", repo.display()));
            return Answer::Wrong.into();
        }
        if let Some(proxy) = &self.join {
            return self.joined(proxy);
        }
        if self.observe && !self.json {
            print::err(OBSERVING);
        }
        self.config = load::find(self.config.as_deref(), self.json).path;
        let summary = self.summary.as_deref().map(SummaryFile::open).transpose();
        let summary = match summary {
            Ok(summary) => summary,
            Err(error) => {
                print::err(&format!("tidegate: {error}\n"));
                return Answer::Wrong.into();
            }
        };
        // The command has the same user: only programs of root are beyond its reach.
        let owners = Owners::of_this_process().for_a_command();
        let catalogue = policy::built_in();
        let plan = match Plan::new(self.config.as_deref(), &catalogue, &owners) {
            Ok(plan) => plan,
            Err(findings) => {
                print::err(&diag::render(&findings, print::colour()));
                return Answer::Wrong.into();
            }
        };
        let start = Start {
            plan,
            catalogue,
            owners,
            summary,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        let ran = runtime
            .context("cannot start the runtime")
            .and_then(|runtime| runtime.block_on(self.run(start)));
        match ran {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                print::err(&format!("tidegate: {error:#}\n"));
                let contained = error.downcast_ref();
                if let Some(hint) = contained.and_then(jailed::hint) {
                    print::err(&hint);
                }
                let contained = contained.map(jailed::code);
                ExitCode::from(contained.unwrap_or(Answer::Failed.code()))
            }
        }
    }

    fn joined(&self, proxy: &Proxy) -> ExitCode {
        let id = self.session.unwrap_or_else(Uuid::now_v7);
        let (mut request, channel) =
            self.session_request(id, &FolderEvidence::at(self.folder(), None, false));
        request.channel = Some(channel.to_owned());
        request.lifetime = None;
        let control = self.control.clone().or_else(default_control);
        let ran = control
            .context("no control socket is known: say --control unix:PATH")
            .and_then(|control| {
                let admin = self.admin.clone().unwrap_or_else(admin::default_address);
                let gate = joined::Gate {
                    proxy,
                    control: &control,
                    admin: &admin,
                };
                gate.run(&request, |variables| self.words(id, variables))
            });
        match ran {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                print::err(&format!("tidegate: {error:#}\n"));
                Answer::Failed.into()
            }
        }
    }

    async fn run(&self, start: Start) -> anyhow::Result<u8> {
        let Start {
            plan,
            catalogue,
            owners,
            summary,
        } = start;
        let adapt = if self.observe { observed } else { own };
        let mut hide = hidden::files(&plan.config);
        hide.extend(workplace::folder_of_pins().filter(|_| self.jail));
        let mut options = jailed::Options {
            shares: self.share.clone(),
            allow_missing: self.allow_missing.clone(),
            hide,
            programs: hidden::programs(&plan.config),
            copies: Vec::new(),
        };
        let found = FolderEvidence::at(self.folder(), Some(&plan.config.workspaces), self.jail);
        let mut plan = adapt(plan);
        let id = self.session.unwrap_or_else(Uuid::now_v7);
        let limit = child::descriptors();
        let front = if self.jail {
            None
        } else {
            Some(Front::bind()?)
        };
        let place = front.as_ref().map_or(jailed::PLACE, Front::place);
        plan.config.listen.proxy = vec![Listener::at(place.proxy)];
        let spare = spare(plan.config.record.file.as_deref(), id);
        let own = front.as_ref().map(Front::place);
        let own = own.map_or_else(Vec::new, |own| vec![own.proxy, own.admin]);
        let programs = Programs::of(owners);
        let children = programs.children();
        let running = Running::start(plan, own, spare, programs)?;
        if found.refuses(&running.gate, &id.to_string()) {
            running.close().await;
            return Ok(Answer::Wrong.code());
        }
        let session = self.session(&running.gate, id, &found).await?;
        found.remember(&running.gate.clock);
        running.keep_copy(catalogue, adapt);
        running.sample();
        let mut variables = session.variables(place)?;
        let mut words = self.words(id, &variables);
        if let Some(plugin) = self.add_copilot_plugin(&mut words, &running) {
            options.copies.push(plugin);
        }
        if let Some(bundle) = &running.bundle {
            super::env::add(&mut variables, super::ca::variables(bundle));
        }
        if self.no_telemetry {
            variables.extend(super::env::no_telemetry());
        }
        variables.extend(self.wrapper(&running));
        if let Some((plugin, variable)) = self.plugin(&running) {
            options.copies.push(plugin);
            variables.push(variable);
        }
        if front.is_none() {
            variables.push(jailed::variable(&running.config));
        }
        let tasks = &running.gate.attendants;
        let mut child = Child::new(&words, &variables, limit, tasks, children);
        let ended = match front {
            None => jailed::run(&running, &session, &mut child, &options).await,
            Some(front) => {
                front.serve(&running, session.tenant());
                Ok(child.run(&session.family).await)
            }
        };
        drop(child);
        match ended {
            Ok(code) => {
                self.end(running, &session, summary).await?;
                Ok(code)
            }
            Err(error) => {
                running.cut().await;
                session.record_end(&running.gate, "the command did not start");
                running.close().await;
                Err(error.into())
            }
        }
    }

    async fn end(
        &self,
        running: Running,
        session: &Session,
        summary: Option<SummaryFile>,
    ) -> anyhow::Result<()> {
        running.cut().await;
        session.record_end(&running.gate, "the command ended");
        let end = summary::End {
            counts: session.tally.counts(),
            session: &session.started,
            record: running.config.record.file.clone(),
            config: self.config.as_deref(),
            observed: self.observe,
        };
        running.close().await;
        print::err(&if self.json { end.json() } else { end.text() });
        if let Some(file) = summary {
            file.write(&end.json()).context("--summary")?;
        }
        Ok(())
    }

    /// Returns the request for the command's session, and its channel.
    fn session_request(&self, id: Uuid, found: &FolderEvidence) -> (SessionRequest, &'static str) {
        let copy = found.copy.clone();
        let agent = self.recognised().map(|it| it.agent.name().to_owned());
        let channel = if agent.is_some() { "main" } else { "bash" };
        let request = SessionRequest {
            session: Some(id.to_string()),
            agent,
            repository: copy.repository,
            r#ref: copy.branch,
            commit: copy.commit,
            pid: Some(std::process::id()),
            lifetime: Some(LIFETIME.as_secs()),
            folder: found.folder(),
            working_copy: true,
            ..SessionRequest::default()
        };
        (request, channel)
    }

    /// Returns the folder that the command works in, as evidence.
    fn folder(&self) -> &Path {
        self.repo.as_deref().unwrap_or(Path::new("."))
    }

    async fn session(
        &self,
        gate: &Gate,
        id: Uuid,
        found: &FolderEvidence,
    ) -> anyhow::Result<Session> {
        let (request, channel) = self.session_request(id, found);
        let tally = Arc::new(Tally::default());
        gate.recorder.count_into(&tally);
        let ground = Ground::Launcher(&found.workplace);
        let started = gate.start_session(&request, ground, &asker()).await?;
        let identity = &gate.snapshot.load().identity;
        let shown = identity.session(&started.token)?;
        let family = Arc::new(Family::of_this_process());
        let word = self.recognised().and_then(|it| it.word).unwrap_or(0);
        let program = self.command.get(word).map(OsString::as_os_str);
        let agent = AgentProcess::new(family.clone(), program.and_then(Program::of_command));
        let root = started.session.as_str().into();
        if self.claude().is_some() && claude::chooses_its_session(&self.command) {
            identity.sessions().awaits_id(&root);
        }
        identity.sessions().agent_is(root, agent);
        Ok(Session {
            started,
            // The listener belongs to the session while the listener exists.
            grant: Arc::new(Grant {
                evidence: Evidence::Listener,
                expires: None,
                channel: Some(channel.into()),
                ..Grant::clone(&shown)
            }),
            family,
            channel,
            tally,
        })
    }

    /// Returns the agent that the command starts.
    fn recognised(&self) -> Option<Recognised> {
        Recognised::of(&self.command, self.agent)
    }

    /// Returns the index of Claude Code's program in the command, if it is there.
    fn claude(&self) -> Option<usize> {
        let claude = self.recognised().filter(|it| it.agent == Agent::Claude)?;
        claude.word
    }

    /// Returns the command. Claude Code gets its session id; Claude Code and Codex get hooks for
    /// this run.
    fn words(&self, id: Uuid, variables: &[(&'static str, String)]) -> Vec<OsString> {
        let whole = || self.command.clone();
        let Some(Recognised { agent, word }) = self.recognised() else {
            return whole();
        };
        if agent == Agent::Gemini && !gemini::has_hooks() {
            print::err(gemini::WITHOUT_HOOKS);
        }
        let Some(at) = word else { return whole() };
        let (before, command) = self.command.split_at(at);
        let words = match agent {
            Agent::Claude => claude::words(command, &id.to_string(), variables),
            Agent::Codex => codex::words(command),
            _ => return whole(),
        };
        before.iter().cloned().chain(words).collect()
    }

    /// Returns the PATH in which a script finds Claude Code with hooks.
    fn wrapper(&self, running: &Running) -> Option<(&'static str, String)> {
        self.recognised()
            .filter(|it| it.agent == Agent::Claude && it.word.is_none())?;
        let record = running.config.record.file.as_deref();
        let written = if self.jail {
            Err("its program is not in the jail".to_owned())
        } else {
            claude::write_wrapper(record).map_err(|error| error.to_string())
        };
        let path = written.and_then(|folder| {
            let before = std::env::var_os("PATH").unwrap_or_default();
            let folders = [folder].into_iter().chain(std::env::split_paths(&before));
            let joined = std::env::join_paths(folders).map_err(|error| error.to_string())?;
            joined
                .into_string()
                .map_err(|_| "the PATH is no text".to_owned())
        });
        let without = |why: &String| {
            print::err(&format!(
                "tidegate: a script starts Claude Code, and its hooks are not added: {why}. \
                 {WITHOUT_HOOKS}"
            ));
        };
        Some(("PATH", path.inspect_err(without).ok()?))
    }

    /// Adds the plugin for Copilot CLI to its command; returns the file of the plugin.
    fn add_copilot_plugin(&self, words: &mut Vec<OsString>, running: &Running) -> Option<PathBuf> {
        let found = self.recognised();
        let Recognised { word, .. } = found.filter(|it| it.agent == Agent::Copilot)?;
        let written = word.map(|_| copilot::write(running.config.record.file.as_deref()));
        let added = match (word, written) {
            (Some(at), Some(Ok(path))) => Some((at + 1, path)),
            (_, Some(Err(error))) => {
                print::err(&format!("tidegate: {error}\n"));
                None
            }
            _ => None,
        };
        let Some((at, path)) = added else {
            print::err(copilot::WITHOUT_HOOKS);
            return None;
        };
        let folder = path.parent()?.as_os_str().to_owned();
        words.splice(at..at, [copilot::OPTION.into(), folder]);
        Some(path)
    }

    /// Returns the plugin that opencode loads in this run, and the variable that names it.
    fn plugin(&self, running: &Running) -> Option<(PathBuf, (&'static str, String))> {
        self.recognised().filter(|it| it.agent == Agent::Opencode)?;
        let record = running.config.record.file.as_deref();
        let written = opencode::write(record).map_err(|error| error.to_string());
        let found = written.and_then(|path| {
            let variable = opencode::variable(&path)?;
            Ok((path, variable))
        });
        found
            .inspect_err(|why| {
                print::err(&format!(
                    "tidegate: opencode runs without the plugin of tidegate: {why}. Tool calls are \
                     not on record, and the model is not told what is refused.\n"
                ));
            })
            .ok()
    }
}

impl Session {
    fn record_end(&self, gate: &Gate, why: &str) {
        let facts = session_facts(&self.grant, Some(why.into()), &asker());
        gate.recorder.event(&Event::SessionEnded(Box::new(facts)));
    }

    fn tenant(&self) -> Tenant {
        Tenant {
            grant: self.grant.clone(),
            family: Some(self.family.clone()),
            alone: false,
        }
    }

    /// Returns the variables of the command.
    fn variables(&self, place: Place) -> anyhow::Result<Vec<(&'static str, String)>> {
        let Started { session, token, .. } = &self.started;
        let channel = self.channel;
        let address = place.proxy;
        let proxy = Proxy::parse(&format!("http://{session}.{channel}:{token}@{address}"));
        let proxy = proxy.map_err(anyhow::Error::msg)?;
        let mut variables = proxy.variables();
        variables.extend([
            ("TIDEGATE_PROXY", address.to_string()),
            ("TIDEGATE_ADMIN", place.admin.to_string()),
            ("TIDEGATE_SESSION", session.clone()),
            ("TIDEGATE_TOKEN", token.clone()),
        ]);
        Ok(variables)
    }
}

/// Returns the control socket of a gate without configuration.
fn default_control() -> Option<AdminAddress> {
    let control = config::embedded().listen.control?;
    Some(AdminAddress::Unix(control.path))
}

/// Returns a plan with a signing key of its own: no other gate's tokens are valid here.
pub(super) fn own(mut plan: Plan) -> Plan {
    let session = &mut plan.config.identity.session;
    session.key = None;
    session.keys.clear();
    session.longest = LIFETIME;
    plan.config.listen.proxy.clear();
    plan.tls = tls::Servers::default();
    plan.config.listen.admin = None;
    plan.config.listen.control = None;
    plan
}

/// Like [`own`], enforcing nothing.
fn observed(plan: Plan) -> Plan {
    own(plan).observing()
}

/// Returns the log file for the time while another gate writes the usual file.
fn spare(file: Option<&Path>, session: Uuid) -> Option<PathBuf> {
    let file = file?;
    let stem = file.file_stem()?.to_string_lossy();
    Some(file.with_file_name(format!("{stem}-{session}.jsonl")))
}

/// Returns the starter of the command's session: this process.
fn asker() -> Asker {
    Asker {
        door: "exec",
        uid: Some(rustix::process::getuid().as_raw()),
        pid: Some(std::process::id()),
        ..Asker::default()
    }
}
