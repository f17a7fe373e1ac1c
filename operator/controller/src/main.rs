//! The controller: the thin loop around `operator-plan`, and the only room with a Kubernetes client.
//!
//! ```text
//! watch -> reconcile: gather -> (plan) decide -> apply status, then steps
//! ```
//!
//! Only `gather` reads the cluster for a round, only `apply` writes to it; `lease` does both for its one Lease.

mod apply;
mod arguments;
mod cluster;
mod echo;
mod events;
mod families;
mod fence;
mod gather;
mod lease;
mod pools;
mod reconcile;
mod relay_facts;
mod relays;
mod server;
mod sets;
mod telemetry;
mod tenure;
mod wakes;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::sync::watch::Receiver;
use tracing::{error, info, warn};

use arguments::Arguments;
use cluster::{Cluster, Lifetime};
use echo::Echoes;
use lease::LeaseKeeper;
use relays::Concerned;
use telemetry::Telemetry;
use tenure::Tenure;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = telemetry::start_logging(&arguments.log_filter, arguments.log_format) {
        eprintln!("operator: {error:#}");
        return ExitCode::from(2);
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let stop = server::stop_on_signal()?;
    let telemetry = Arc::new(Telemetry::new()?);
    let address = server::serve(arguments.listen, Arc::clone(&telemetry)).await?;
    info!(%address, version = env!("CARGO_PKG_VERSION"), "operator starts; /metrics and /healthz are served");
    let tenure = Tenure::new(&arguments.instance());
    let (client, lease_client) = cluster::connect(&arguments, Arc::clone(&tenure)).await?;
    cluster::check(&client, arguments.watch_namespace.as_deref()).await?;
    if arguments.check {
        info!("definitions and rights are there");
        return Ok(());
    }
    let leader = LeaseKeeper::new(lease_client, &arguments, tenure);
    let Some(generation) = lead(&leader, &telemetry, stop.clone()).await? else {
        return Ok(()); // asked to stop before it led
    };
    let mut settings = arguments.settings(client.default_namespace());
    settings.status_key = relay_facts::status_key(&client, &settings.custody_namespace)
        .await
        .context("cannot look for the key of status tokens")?;
    let (echoes, concerned) = (Arc::new(Echoes::default()), Concerned::default());
    let namespace = arguments.watch_namespace.as_deref();
    let (events, store, listed) = relays::watch(&client, namespace, Arc::clone(&echoes), concerned.clone());
    telemetry.inventory.count_relays_of(store.clone());
    let cluster = Arc::new(Cluster::new(
        client,
        settings,
        Arc::clone(&telemetry),
        &arguments.instance(),
        Lifetime::new(arguments.abort_after_writes),
        (store, listed),
        echoes,
    ));
    let relays = watch::run(
        Arc::clone(&cluster),
        events,
        namespace,
        arguments.concurrency,
        stop.clone(),
    );
    tokio::select! {
        () = async { tokio::join!(relays, work(cluster, concerned, &arguments, stop.clone())); } => {}
        lost = leader.keep(generation, &telemetry) => return Err(lost),
        () = overdue(stop.clone()) => {
            // What they have sent may still be done: nobody is invited to lead before the Lease ends.
            warn!("rounds do not end within {} s: they are left where they are", ENDING.as_secs());
            return Ok(());
        }
    }
    leader.release().await;
    info!("operator stops");
    Ok(())
}

/// Rounds have so long to end once they are asked to; Kubernetes kills after thirty seconds.
const ENDING: Duration = Duration::from_secs(20);

/// Ends when what was asked to stop should have ended long ago.
async fn overdue(stop: Receiver<bool>) {
    watch::stopped(stop).await;
    tokio::time::sleep(ENDING).await;
}

/// All other loops, until they are asked to stop.
async fn work(cluster: Arc<Cluster>, concerned: Concerned, arguments: &Arguments, stop: Receiver<bool>) {
    let namespace = arguments.watch_namespace.as_deref();
    tokio::join!(
        fence::run(Arc::clone(&cluster), namespace, arguments.concurrency, stop.clone()),
        relay_facts::run(Arc::clone(&cluster), stop.clone()),
        sets::run(Arc::clone(&cluster), concerned.sets, namespace, stop.clone()),
        families::run(Arc::clone(&cluster), concerned.families, namespace, stop.clone()),
        pools::run(cluster, concerned.pools, namespace, stop),
    );
}

/// Waits until this process leads; `None` if it is asked to stop before.
async fn lead(keeper: &LeaseKeeper, telemetry: &Telemetry, mut stop: Receiver<bool>) -> anyhow::Result<Option<i32>> {
    let generation = tokio::select! {
        led = keeper.acquire() => led.context("cannot lead")?,
        _ = stop.wait_for(|stop| *stop) => return Ok(None),
    };
    telemetry.leader.set(1);
    Ok(Some(generation))
}
