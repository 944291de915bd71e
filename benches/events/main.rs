//! How soon an event that leaves an origin reaches the client, and what else looking inside costs.
//!
//! Origin, gate (the program itself) and client are on loopback; origin and client are threads of
//! this process and so share a monotonic clock. The origin stamps each event just before it writes
//! it, the client reads the clock when it has the whole event. All ways take turns, so that what
//! else the machine does meets them alike.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement has nothing to protect: it stops where something is wrong"
)]

mod authority;
mod client;
mod gate;
mod origin;

use std::time::{Duration, Instant};

use authority::Authority;
use client::{Client, Way};
use gate::Gate;
use origin::Origin;

/// Every way is taken this often.
const ROUNDS: usize = 5;
/// Events of one stream, and the time between two.
const EVENTS: usize = 200;
const PAUSE: Duration = Duration::from_millis(5);
/// How long requests follow one another on one connection.
const ASKING: Duration = Duration::from_secs(1);
/// New connections of each kind in one round.
const CONNECTIONS: usize = 40;

const OPAQUE: &str = "opaque.example.com";
const INSPECTED: &str = "inspected.example.com";
const TOOLS: &str = "tools.example.com";

fn main() {
    // Run or listed as a test, it has nothing to say.
    if !std::env::args().any(|word| word == "--bench") {
        return;
    }
    let (origins, inspecting) = (Authority::new("origins"), Authority::new("inspection"));
    let origin = Origin::start(&origins);
    let gate = Gate::start(&config(&origin), &origins, &inspecting);
    let client = Client::new(&origins, &inspecting, gate.proxy);
    events(&client, &origin);
    requests(&client, &gate, &origin);
    connections(&client, &origin);
}

// --- What is measured ---------------------------------------------------------------------------

fn events(client: &Client, origin: &Origin) {
    let (h1, h2) = (origin.http1, origin.http2);
    let ways = [
        Way::direct("no gate, h1", OPAQUE, h1),
        Way::direct("no gate, h2", OPAQUE, h2).with_http2(),
        Way::tunnel("opaque tunnel, h1", OPAQUE, h1),
        Way::tunnel("opaque tunnel, h2", OPAQUE, h2).with_http2(),
        Way::inspected("inspected, h1 - h1", INSPECTED, h1),
        Way::inspected("inspected, h2 - h2", INSPECTED, h2).with_http2(),
        Way::inspected("inspected, h1 - h2", INSPECTED, h2),
        Way::inspected("MCP, filtered, h1 - h1", TOOLS, h1).with_tools(),
        Way::inspected("MCP, filtered, h2 - h2", TOOLS, h2)
            .with_http2()
            .with_tools(),
    ];
    let mut taken = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (way, taken) in ways.iter().zip(&mut taken) {
            let times = client.events(way);
            assert_eq!(times.len(), EVENTS, "{}: events are missing", way.name);
            taken.push(times);
        }
    }
    println!(
        "\nevents: {ROUNDS} x {EVENTS} each, one every {PAUSE:?}; from origin to client, in ms"
    );
    heading(&[
        "way (client - origin)",
        "p50",
        "p90",
        "p99",
        "max",
        "quietest p50",
    ]);
    for (way, rounds) in ways.iter().zip(taken) {
        row(way.name, rounds);
    }
}

fn connections(client: &Client, origin: &Origin) {
    let mut taken = vec![Vec::new(); 4];
    let mut fresh = 0;
    for _ in 0..ROUNDS {
        let mut times = vec![Vec::new(); 4];
        for _ in 0..CONNECTIONS {
            let name = new_name(fresh);
            fresh += 1;
            let ways = [
                Way::direct("", OPAQUE, origin.http1),
                Way::tunnel("", OPAQUE, origin.http1),
                Way::inspected("", INSPECTED, origin.http1),
                Way::inspected("", &name, origin.http1),
            ];
            for (way, times) in ways.iter().zip(&mut times) {
                times.push(client.first_byte(way));
            }
        }
        for (taken, times) in taken.iter_mut().zip(times) {
            taken.push(times);
        }
    }
    println!(
        "\na new connection: {ROUNDS} x {CONNECTIONS} each; from dialling to the answer, in ms"
    );
    heading(&["way", "p50", "p90", "p99", "max", "quietest p50"]);
    let names = [
        "no gate",
        "opaque tunnel",
        "inspected, a name seen before",
        "inspected, a new name (a certificate is minted)",
    ];
    for (name, rounds) in names.into_iter().zip(taken) {
        row(name, rounds);
    }
}

fn requests(client: &Client, gate: &Gate, origin: &Origin) {
    let ways = [
        Way::tunnel("opaque tunnel, h1", OPAQUE, origin.http1),
        Way::inspected("inspected, h1 - h1", INSPECTED, origin.http1),
        Way::inspected("inspected, h2 - h2", INSPECTED, origin.http2).with_http2(),
        Way::inspected("inspected, h1 - h2", INSPECTED, origin.http2),
    ];
    let mut taken = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (way, taken) in ways.iter().zip(&mut taken) {
            let (before, began) = (gate.cpu(), Instant::now());
            let count = count(client.requests(way, ASKING));
            let (wall, cpu) = (began.elapsed(), gate.cpu().saturating_sub(before));
            taken.push((count / cpu.as_secs_f64(), count / wall.as_secs_f64()));
        }
    }
    println!("\nrequests, one after the other on one connection: medians of {ROUNDS} x {ASKING:?}");
    heading(&["way (client - origin)", "per CPU-s of the gate", "per s"]);
    for (way, rounds) in ways.iter().zip(taken) {
        let middle = |of: fn(&(f64, f64)) -> f64| {
            let mut all: Vec<f64> = rounds.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let (per_cpu, per_second) = (middle(|it| it.0), middle(|it| it.1));
        println!("| {} | {per_cpu:.0} | {per_second:.0} |", way.name);
    }
}

fn count(requests: u32) -> f64 {
    f64::from(requests)
}

// --- Tables -------------------------------------------------------------------------------------

fn heading(columns: &[&str]) {
    println!("| {} |", columns.join(" | "));
    println!("|{}", "---|".repeat(columns.len()));
}

fn row(name: &str, mut rounds: Vec<Vec<Duration>>) {
    for round in &mut rounds {
        round.sort();
    }
    let quietest = rounds.iter().map(|round| at(round, 50)).min();
    let mut all = rounds.concat();
    all.sort();
    let quantiles = [50, 90, 99, 100].map(|percent| at(&all, percent));
    let shown = quantiles.into_iter().chain(quietest);
    let shown: Vec<String> = shown
        .map(|it| format!("{:.3}", it.as_secs_f64() * 1e3))
        .collect();
    println!("| {name} | {} |", shown.join(" | "));
}

fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

// --- The gate's configuration -------------------------------------------------------------------

/// A name that is asked for once.
fn new_name(at: usize) -> String {
    format!("host-{at}.new.example.com")
}

/// Records to a file and metrics on, as usual.
fn config(origin: &Origin) -> String {
    let (h1, h2) = (origin.http1, origin.http2);
    let fresh = (0..ROUNDS * CONNECTIONS).map(new_name);
    let hosts: Vec<String> = [OPAQUE, INSPECTED, TOOLS]
        .into_iter()
        .map(str::to_owned)
        .chain(fresh)
        .map(|name| format!("\"{name}\" = [\"127.0.0.1\"]"))
        .collect();
    format!(
        r#"
[listen]
proxy = ["127.0.0.1:0"]
admin = "127.0.0.1:0"

[record]
file = "decisions.jsonl"

[tiers]
order        = ["closed"]
unattributed = "closed"

[tier.closed]
default = "deny"

[inspect]
ca-cert = "inspect.pem"
ca-key  = "inspect.key"

[upstream.origins]
roots = ["origins.pem"]

[dial]
hosts = {{ {hosts} }}

[[rule]]
id              = "opaque"
verdict         = "allow"
to.hosts        = ["{OPAQUE}"]
to.ports        = [{h1}, {h2}]
grant.addresses = ["127.0.0.0/8"]

[[rule]]
id              = "inspected"
verdict         = "allow"
to.hosts        = ["{INSPECTED}", "*.new.example.com"]
to.ports        = [{h1}, {h2}]
grant.addresses = ["127.0.0.0/8"]
grant.inspect   = true
grant.upstream  = "origins"

[[rule]]
id              = "tools"
verdict         = "allow"
does.servers    = ["tools-h1", "tools-h2"]
does.tools      = ["search"]
grant.addresses = ["127.0.0.0/8"]
grant.upstream  = "origins"

[mcp.tools-h1]
url = "https://{TOOLS}:{h1}/mcp"

[mcp.tools-h2]
url = "https://{TOOLS}:{h2}/mcp"
"#,
        hosts = hosts.join(", ")
    )
}
