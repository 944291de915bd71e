//! Measures HTTP forward proxies side by side on one machine, over loopback. README.md says how to read it.

mod callgrind;
mod certificates;
mod cost;
mod counting;
mod counts;
mod cpu;
mod draw;
mod figures;
mod load;
mod origin;
mod peer;
mod program;
mod relay;
mod suite;
mod table;
mod tls;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Measures HTTP forward proxies side by side, over loopback")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the peers in turn; write the figures, a table and a picture
    Run(suite::Options),
    /// Count the instructions of one operation of tidegate, and compare them with those of before
    Cost(cost::Options),
    /// Draw the table and the picture of figures that were measured before
    Draw { figures: PathBuf },
    /// The server that requests are for
    #[command(hide = true)]
    Origin { certificates: PathBuf },
    /// The client: prints its figures as JSON
    #[command(hide = true)]
    Load(load::Options),
    /// A proxy without policy, log or deadlines: what a proxy can be compared to
    #[command(hide = true)]
    Relay {
        port: u16,
        /// Ends TLS on both sides, with these certificates
        #[arg(long)]
        tls: Option<PathBuf>,
    },
    /// Keeps a processor from resting
    #[command(hide = true)]
    Spin,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Run(options) => suite::run(&options),
        Command::Cost(options) => cost::run(&options),
        Command::Draw { figures } => suite::draw(&figures),
        Command::Origin { certificates } => block_on(origin::serve(&certificates)),
        Command::Load(options) => block_on(load::run(options)),
        Command::Relay { port, tls: None } => relay::serve(port),
        Command::Relay {
            port,
            tls: Some(certificates),
        } => block_on(tls::relay(port, &certificates)),
        Command::Spin => loop {
            std::hint::spin_loop();
        },
    }
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}
