//! The way to the cluster, and what every round needs of it.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use k8s_openapi::NamespaceResourceScope;
use kube::api::ListParams;
use kube::client::ClientBuilder;
use kube::client::retry::RetryPolicy;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::Store;
use kube::{Api, Client, Config, Resource};
use operator_api::{Relay, RelayFamily};
use operator_plan::Settings;
use serde::de::DeserializeOwned;
use tower::buffer::BufferLayer;
use tower::retry::RetryLayer;

use crate::arguments::Arguments;
use crate::echo::Echoes;
use crate::relays::{GuardedRelay, Listed};
use crate::telemetry::Telemetry;
use crate::tenure::{Gate, Tenure};

/// Client, settings and counters, shared by all rounds.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) recorder: Recorder,
    pub(crate) lifetime: Lifetime,
    /// All Relays, without what no loop reads from there.
    pub(crate) relays: Store<GuardedRelay>,
    /// Whether that is all of them.
    pub(crate) listed: Listed,
    pub(crate) echoes: Arc<Echoes>,
}

/// How many writes this process may live to see: for tests of what dying between any two of them does.
pub(crate) struct Lifetime(Option<AtomicU64>);

impl Lifetime {
    pub(crate) fn new(writes: Option<u64>) -> Self {
        Self(writes.map(AtomicU64::new))
    }

    /// Does not return from the last.
    pub(crate) fn spend(&self) {
        let left = self.0.as_ref().map(|left| left.fetch_sub(1, Ordering::SeqCst));
        if left.is_some_and(|left| left <= 1) {
            std::process::exit(86);
        }
    }
}

impl Cluster {
    pub(crate) fn new(
        client: Client,
        settings: Settings,
        telemetry: Arc<Telemetry>,
        instance: &str,
        lifetime: Lifetime,
        (relays, listed): (Store<GuardedRelay>, Listed),
        echoes: Arc<Echoes>,
    ) -> Self {
        let reporter = Reporter {
            controller: "relayfleet-operator".to_owned(),
            instance: Some(instance.to_owned()),
        };
        let recorder = Recorder::new(client.clone(), reporter);
        Self {
            client,
            settings,
            telemetry,
            recorder,
            lifetime,
            relays,
            listed,
            echoes,
        }
    }
}

/// Two clients for the cluster that the arguments, the environment or the pod's service account name: one that writes only as
/// long as the tenure lasts, and one for the Lease by which the tenure is renewed.
pub(crate) async fn connect(arguments: &Arguments, tenure: Arc<Tenure>) -> anyhow::Result<(Client, Client)> {
    let options = KubeConfigOptions {
        context: arguments.context.clone(),
        ..Default::default()
    };
    let mut config = match &arguments.kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file).with_context(|| format!("--kubeconfig {}", file.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .context("--kubeconfig")?
        }
        None if arguments.context.is_some() => Config::from_kubeconfig(&options).await.context("--context")?,
        None => Config::infer()
            .await
            .context("no cluster: give --kubeconfig, set KUBECONFIG, or run in a pod")?,
    };
    let unusable = "cannot make a client from the configuration";
    let lease_client = Client::try_from(config.clone()).context(unusable)?;
    // What is refused for a while is sent again above the gate, so that each attempt passes it.
    config.default_retry = false;
    let client = ClientBuilder::try_from(config)
        .context(unusable)?
        .with_layer(&Gate(tenure))
        .with_layer(&BufferLayer::new(REQUESTS_WAITING_MAX))
        .with_layer(&RetryLayer::new(RetryPolicy::server_retry()))
        .build();
    Ok((client, lease_client))
}

/// As kube's own client: requests that wait for a connection before their rounds do.
const REQUESTS_WAITING_MAX: usize = 1024;

/// Says early and in plain words what a person can mend: no cluster, no definition, no rights.
pub(crate) async fn check(client: &Client, namespace: Option<&str>) -> anyhow::Result<()> {
    let version = client
        .apiserver_version()
        .await
        .context("the API server does not answer")?;
    tracing::info!(version = version.git_version, "connected to the API server");
    look::<Relay>(client, namespace).await?;
    look::<RelayFamily>(client, namespace).await
}

async fn look<K>(client: &Client, namespace: Option<&str>) -> anyhow::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let kind = K::plural(&());
    let objects: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    match objects.list_metadata(&ListParams::default().limit(1)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            anyhow::bail!("the cluster does not know {kind}.relayfleet.io: install the chart, or apply crds/")
        }
        Err(kube::Error::Api(status)) if status.code == 403 => {
            anyhow::bail!(
                "no right to list {kind} ({}); the chart's roles grant it, or set --watch-namespace",
                status.message
            )
        }
        other => other.map(|_| ()).with_context(|| format!("cannot list {kind}")),
    }
}
