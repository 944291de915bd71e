//! The running program: build, bind, report, run until drained.

mod banner;
mod copies;
mod discovery;
mod interfaces;
mod ledger;
mod plan;
mod reload;
mod repository_policies;
mod running;
mod sockets;
mod standing;
mod trust;
#[cfg(target_os = "linux")]
mod walls;

use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, Door, Remote, Status};
use crate::clock::Clock;
use crate::config::Owners;
use crate::diag;
use crate::dial::Programs;
use crate::gate::Gate;
use crate::policy::{self, Catalogue};

pub use banner::{colour, colour_of_output};
pub use copies::{CopyError, PolicyCopies, PolicyCopy};
pub use discovery::{Discovered, Origin, discover, every_place};
pub use plan::{Loaded, Plan};
pub use repository_policies::RepositoryPolicies;
pub use running::Running;
pub use standing::{Standing, WALLS};

use sockets::Bound;

/// The interval at which byte counters of open flows reach the metrics and idle connections are
/// closed.
const SAMPLE: Duration = Duration::from_secs(5);
/// How long closed flows may take to write their close records.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Runs `tidegate run`. Exit code 0 after a drain, 2 if the configuration is wrong or another user
/// could change it, 4 if the system failed. `policy_owners`: users besides root and the user of
/// this process who may own the policy.
pub fn run_command(discovered: &Discovered, policy_owners: &[u32]) -> ExitCode {
    run_with_clock(discovered, policy_owners, Clock::system())
}

/// As [`run_command`], with another clock: for tests. No command and no setting leads here.
pub fn run_with_clock(discovered: &Discovered, policy_owners: &[u32], clock: Clock) -> ExitCode {
    banner::log_to_stderr();
    let catalogue = policy::built_in();
    let owners = Owners::of_this_process().and(policy_owners);
    let plan = match Plan::new(discovered.path(), &catalogue, &owners) {
        Ok(plan) => Plan { clock, ..plan },
        Err(findings) => {
            banner::say(&diag::render(&findings, colour()));
            return ExitCode::from(2);
        }
    };
    if !plan.warnings.is_empty() {
        banner::say(&diag::render(&plan.warnings, colour()));
    }
    let ran = runtime()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(run(plan, discovered, catalogue, owners)));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            banner::say(&format!("tidegate: {error:#}\n"));
            ExitCode::from(4)
        }
    }
}

/// The runtime of the gate: a thread for each processor that it may use. With one processor it is
/// Tokio's runtime of the current thread, which needs no queues that threads share.
fn runtime() -> std::io::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut builder = match processors {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.enable_all().build()
}

/// Runs a plan until a stop is requested and its flows have ended.
async fn run(
    plan: Plan,
    discovered: &Discovered,
    catalogue: Catalogue,
    owners: Owners,
) -> anyhow::Result<()> {
    give_memory_back();
    let standing = Standing::of_this_process();
    let mut stop = Stop::new()?;
    let hangup = signal(SignalKind::hangup())?;
    let bound = Bound::new(&plan.config.listen)?;
    let programs = Programs::of(owners.clone());
    let running = Running::start(plan, bound.addresses(), None, programs)?;
    let gate = running.gate.clone();
    banner::started(&running.config, discovered, &gate, &bound);
    if let Some(why) = standing.why_advice() {
        banner::say(&banner::advice(&why));
        gate.policy_is_advisory(&why);
    }
    gate.advisory.watch();
    serve_admin(&gate, bound.admin, Door::Admin, &running.quiet);
    serve_admin(&gate, bound.control, Door::Control, &running.quiet);
    if let Some((listener, written)) = bound.remote {
        let remote = Remote {
            gate: gate.clone(),
            bound: written,
        };
        let admin = Admin {
            remote: Some(remote),
            ..admin(&gate)
        };
        let served = crate::admin::serve(listener, Door::Remote, admin, running.quiet.clone());
        gate.attendants.spawn(served);
    }
    running.serve(bound.proxies);
    running.follow_files(catalogue, owners, hangup);
    running.sample();
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    banner::say("tidegate: ready\n");

    stop.asked().await;
    drain(&gate, &mut stop).await;
    running.close().await;
    banner::say("tidegate: stopped\n");
    Ok(())
}

/// Has the allocator give unused memory back to the system from a thread of its own.
///
/// Not in every process: the helpers of a jail make namespaces, and may have one thread only.
fn give_memory_back() {
    // An error leaves it to threads that allocate; so it is where another allocator is linked.
    let _ = tikv_jemalloc_ctl::background_thread::write(true);
}

fn serve_admin(
    gate: &Arc<Gate>,
    listener: Option<crate::admin::AdminListener>,
    door: Door,
    stop: &CancellationToken,
) {
    let Some(listener) = listener else { return };
    // Runs during the drain, so that operators can observe it; `stop` ends it.
    let served = crate::admin::serve(listener, door, admin(gate), stop.clone());
    gate.attendants.spawn(served);
}

/// The status, metrics and gate of an admin listener.
fn admin(gate: &Arc<Gate>) -> Admin {
    let seen = gate.clone();
    let status = move || {
        let snapshot = seen.snapshot.load();
        let stale = seen.stale.load();
        let draining = seen.draining.is_cancelled();
        let kept = seen.recorder.available();
        let why_not = match kept {
            _ if draining => Some("draining".to_owned()),
            Err(why) => Some(why.to_string()),
            Ok(()) => None,
        };
        Status {
            ready: why_not.is_none(),
            why_not,
            draining,
            digest: snapshot.digest.clone(),
            generation: snapshot.generation,
            stale: stale.is_some(),
            error: stale.as_ref().as_deref().map(str::to_owned),
            ledger: seen.ledger_status(),
        }
    };
    Admin {
        metrics: gate.metrics.clone(),
        status: Arc::new(status),
        gate: Some(gate.clone()),
        remote: None,
    }
}

async fn sample(gate: Arc<Gate>, quiet: CancellationToken) {
    let mut tick = tokio::time::interval(SAMPLE);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = quiet.cancelled() => return,
        }
        for flow in gate.flows.list() {
            flow.sample();
        }
        gate.tend_requests();
        gate.snapshot.load().dialer.pool.sweep(gate.clock.instant());
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
    }
}

/// Accepts no new flow, waits for open flows until the deadline or a second signal, then closes
/// them.
async fn drain(gate: &Arc<Gate>, stop: &mut Stop) {
    let longest = gate.snapshot.load().limits.drain;
    banner::say(&format!(
        "tidegate: draining: {} flows open, at most {} s; a second signal ends them at once\n",
        gate.flows.count(),
        longest.as_secs()
    ));
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    gate.metrics.draining();
    gate.draining.cancel();
    gate.tasks.close();
    tokio::select! {
        () = gate.tasks.wait() => return,
        () = tokio::time::sleep(longest) => {}
        () = stop.asked() => {}
    }
    gate.flows.end_all();
    if tokio::time::timeout(LAST_WORDS, gate.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(flows = gate.flows.count(), "flows did not end in time");
    }
}

/// The stop signals: SIGTERM and SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
