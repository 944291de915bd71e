//! The gate, the origin and the clients of a live run.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::{Plan, Running};
use crate::config::{self, IdentityDemand, LedgerStore, Listener, Owners};
use crate::dial::{self, Dialer, Programs};
use crate::identity::Claims;
use crate::name::Host;
use crate::policy::Facts;
use crate::policy::redteam::{Client, Played, Player, Step};
use crate::proxy::{self, Bound};
use crate::tls;

use super::super::env::Proxy;
use super::super::{ca, exec};
use super::clients::{self, Clients, Ended, Turn};
use super::origin::{self, Answer, Origin};
use super::outcome::{Live, Log, NotTaken, Taken};
use super::package::Package;
use super::repositories::Repositories;

/// Scenarios that are played at once, at most.
const AT_ONCE: usize = 4;
/// The time limit for all scenarios together. Scenarios after it are not played.
const RUN_TIMEOUT: Duration = Duration::from_mins(10);
/// The lifetime of the session of one client.
const SESSION: Duration = Duration::from_hours(1);

/// A running gate with its origin and its clients.
pub(super) struct Stage {
    /// Holds the records and all files of clients; removed at the end.
    folder: TempDir,
    running: Running,
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

/// The state that the clients of all scenarios share.
struct Shared {
    origin: Arc<Origin>,
    clients: Clients,
    repositories: Option<Repositories>,
    missing: BTreeSet<Client>,
}

impl Stage {
    /// Starts the origin and the gate.
    pub(super) async fn start(plan: Plan, played: &[Played<'_>]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("tidegate-redteam-")
            .tempdir()?;
        let clock = plan.clock.clone();
        let hosts = hosts(played);
        let tls = tls::StandIn::new(&hosts, &clock)?;
        let (listener, origin_address) = origin::bind()?;
        let stand_in =
            dial::StandIn::at(origin_address).context("the origin is not on loopback")?;
        let socket = proxy::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = socket.local_addr()?;
        let front = Listener {
            identity: IdentityDemand::Required,
            ..Listener::at(address)
        };
        let programs = Programs::of(Owners::of_this_process());
        let mut plan = in_folder(exec::own(plan).without_reviewers(), folder.path());
        plan.config.listen.proxy = vec![front.clone()];
        plan.upstreams = tls.upstreams(&plan.upstreams);
        let (dial, limits) = (&plan.config.dial, &plan.config.limits);
        let dialer = Dialer::new(dial, limits, clock, &programs, None).leading_to(stand_in);
        plan.dialer = Some(Arc::new(dialer));
        let published = plan.authority.iter().flat_map(|it| it.published());
        let trusted = [tls.root()].into_iter().chain(published);
        let trust = trust(folder.path(), &tls::pem(trusted))?;
        let running = Running::start(plan, vec![address], None, programs)?;
        let origin = Arc::new(Origin::new(tls.server().clone()));
        let stop = CancellationToken::new();
        let tasks = running.gate.attendants.clone();
        tasks.spawn(origin.clone().serve(listener, tasks.clone(), stop.clone()));
        running.serve(vec![Bound::open(socket, Arc::new(front))]);
        let needed: BTreeSet<Client> = steps(played).map(|it| it.client).collect();
        let missing = needed
            .iter()
            .copied()
            .filter(|it| !clients::is_installed(*it));
        let missing: BTreeSet<Client> = missing.collect();
        let uses_git = needed.contains(&Client::Git) && !missing.contains(&Client::Git);
        let repositories = if uses_git {
            Some(Repositories::make(&folder.path().join("git")).await?)
        } else {
            None
        };
        let shared = Shared {
            origin,
            clients: Clients {
                folder: folder.path().join("clients"),
                trust,
            },
            repositories,
            missing,
        };
        Ok(Self {
            folder,
            running,
            address,
            shared: Arc::new(shared),
            stop,
        })
    }

    /// Plays every scenario, ends the gate, and reads its records.
    pub(super) async fn play<'p>(
        self,
        played: &'p [Played<'p>],
        caller: &Player,
    ) -> anyhow::Result<Vec<Live<'p>>> {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut running = JoinSet::new();
        let mut taken: Vec<Result<Vec<Taken>, NotTaken>> = Vec::new();
        for (at, one) in played.iter().enumerate() {
            let proxies = self.proxies(one, caller);
            taken.push(proxies.as_ref().map(|_| Vec::new()).map_err(Clone::clone));
            let Ok(proxies) = proxies else { continue };
            let (shared, turns) = (self.shared.clone(), turns.clone());
            let steps = one.scenario.steps.clone();
            running.spawn(async move {
                let _turn = turns.acquire().await;
                (at, shared.scenario(&steps, &proxies).await)
            });
        }
        let all = async {
            while let Some(ended) = running.join_next().await {
                let (at, steps) = ended.context("a scenario ended early")?;
                if let Some(place) = taken.get_mut(at) {
                    *place = Ok(steps);
                }
            }
            anyhow::Ok(())
        };
        if let Ok(ended) = tokio::time::timeout(RUN_TIMEOUT, all).await {
            ended?;
        }
        running.shutdown().await;
        let log = self.end().await?;
        let live = played.iter().zip(taken);
        Ok(live
            .map(|(one, taken)| Live::new(one, taken, &log))
            .collect())
    }

    /// Ends the gate; returns its records.
    async fn end(self) -> anyhow::Result<Log> {
        self.stop.cancel();
        self.running.cut().await;
        self.running.close().await;
        let log = Log::read(&self.folder.path().join(RECORDS))?;
        // A client that was ended may leave processes that still write there.
        drop(self.folder);
        Ok(log)
    }

    /// The proxy of each step of a scenario, with the credentials of a session of its own; the
    /// error is the reason why the caller cannot be in that tier.
    fn proxies(&self, one: &Played<'_>, caller: &Player) -> Result<Vec<Session>, NotTaken> {
        let snapshot = self.running.gate.snapshot.load();
        let repository = caller
            .repository
            .as_ref()
            .or(one.scenario.repository.as_ref());
        let who = snapshot.policy.who(&Facts {
            groups: &caller.groups,
            repository,
            repository_tier: Some(&one.tier),
            ..Facts::default()
        });
        let tier = snapshot.policy.tier_name(who.tier);
        if *tier != one.tier {
            return Err(NotTaken::OtherTier(tier.clone()));
        }
        let identity = &snapshot.identity;
        let failed = |why: &str| NotTaken::Failed(why.to_owned());
        let signer = identity
            .signer()
            .ok_or_else(|| failed("the gate signs no tokens"))?;
        let session = |_: &Step| {
            let id = Uuid::now_v7().to_string();
            let claims = Claims {
                tier: Some(one.tier.to_string()),
                repository: repository.map(ToString::to_string),
                groups: caller.groups.iter().map(ToString::to_string).collect(),
                ..identity
                    .tokens()
                    .blank(&id, self.running.gate.clock.now(), SESSION)
            };
            let token = signer
                .mint(&claims)
                .ok_or_else(|| failed("no token can be made"))?;
            let proxy = Proxy::parse(&format!("http://{id}.bash:{token}@{}", self.address));
            let proxy = proxy.map_err(NotTaken::Failed)?;
            Ok(Session {
                id,
                proxy: proxy.variables(),
            })
        };
        one.scenario.steps.iter().map(session).collect()
    }
}

/// The session of the client of one step.
#[derive(Clone, Debug)]
struct Session {
    id: String,
    proxy: Vec<(&'static str, String)>,
}

impl Shared {
    /// Plays all steps in their order, also after a step that the gate stopped: an attacker may have
    /// performed that step elsewhere.
    async fn scenario(&self, steps: &[Step], sessions: &[Session]) -> Vec<Taken> {
        let mut taken: Vec<Taken> = Vec::new();
        for (at, (step, session)) in steps.iter().zip(sessions).enumerate() {
            let cause = step.cause.and_then(|cause| taken.get(cause));
            if let Some(cause) = cause.filter(|it| it.arrived) {
                let arrived = self.arrived(&cause.session, step);
                let cause = cause.clone();
                taken.push(Taken { arrived, ..cause });
                continue;
            }
            let caused = steps.iter().find(|it| it.cause == Some(at));
            let end = self.client(step, caused, session).await;
            taken.push(Taken {
                arrived: self.arrived(&session.id, step),
                session: session.id.clone(),
                client: if step.cause.is_some() {
                    Client::Curl
                } else {
                    step.client
                },
                end,
            });
        }
        taken
    }

    /// Whether the flow of a step reached its destination.
    fn arrived(&self, run: &str, step: &Step) -> bool {
        let host = step.target().host.to_string();
        self.origin.was_reached(run, &host, step.request())
    }

    async fn client(&self, step: &Step, caused: Option<&Step>, session: &Session) -> Ended {
        if self.missing.contains(&step.client) {
            return Ended::NotStarted(format!("{} is not installed", step.client.as_str()));
        }
        match self.prepare(step, caused, &session.id).await {
            Err(error) => return Ended::NotStarted(format!("{error:#}")),
            Ok(Some(answer)) => self.origin.answer(&session.id, answer),
            Ok(None) => {}
        }
        let copy = self.repositories.as_ref().map(Repositories::copy);
        let turn = Turn {
            run: &session.id,
            step,
            follows: caused.is_some(),
            proxy: &session.proxy,
            copy: copy.as_deref().unwrap_or(Path::new(".")),
        };
        self.clients.run(turn).await
    }

    /// Prepares the answer of the origin to the client of a step.
    async fn prepare(
        &self,
        step: &Step,
        caused: Option<&Step>,
        run: &str,
    ) -> anyhow::Result<Option<Answer>> {
        Ok(match step.client {
            Client::Git => {
                let repositories = self.repositories.as_ref().context("git is not installed")?;
                let (_, path) = step.request().context("no request")?;
                let ends = ["/info/refs", "/git-receive-pack"];
                let path = ends
                    .iter()
                    .find_map(|end| path.strip_suffix(end))
                    .unwrap_or(path);
                Some(Answer::Repositories(repositories.serve(run, path).await?))
            }
            Client::Npm => {
                let (registry, name) = clients::registry(step);
                let script = caused.map(|step| clients::script(step, run));
                let package = Package::new(&registry, &name, script.as_deref())?;
                Some(Answer::Package(package))
            }
            Client::Curl => caused.map(|caused| Answer::Redirect {
                host: step.target().host.to_string(),
                to: caused.flow.to_string(),
            }),
        })
    }
}

/// The file of the records, in the folder of the run.
const RECORDS: &str = "decisions.jsonl";

/// The plan with its records and its ledger in a folder, and with no shadow policy.
fn in_folder(mut plan: Plan, folder: &Path) -> Plan {
    let config = &mut plan.config;
    config.record = config::Record {
        file: Some(folder.join(RECORDS)),
        key: Some(folder.join("record.key")),
        repeat_window: Duration::ZERO,
        ..config::embedded().record
    };
    if let Some(ledger) = &mut config.ledger {
        ledger.store = LedgerStore::File(folder.join("ledger.db"));
    }
    plan.shadow = None;
    plan
}

/// Writes the certificates that clients trust; returns the variables that name the file.
fn trust(folder: &Path, pem: &str) -> anyhow::Result<Vec<(&'static str, String)>> {
    let file = folder.join("clients.pem");
    tls::create(&file, pem, 0o644)?;
    Ok(ca::variables(&tls::Bundle {
        whole: file.clone(),
        own: file,
        java: folder.join("clients.p12"),
    }))
}

/// Returns every destination of the scenarios, once.
fn hosts(played: &[Played<'_>]) -> Vec<Host> {
    let mut hosts: Vec<Host> = Vec::new();
    for step in steps(played) {
        let host = &step.target().host;
        if !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    hosts
}

fn steps<'p>(played: &'p [Played<'p>]) -> impl Iterator<Item = &'p Step> {
    played.iter().flat_map(|one| &one.scenario.steps)
}
