//! What the relays themselves know of their place in the network, asked at their status ports.
//!
//! A loop apart from the rounds, with a field of the status of its own: a relay that does not answer holds nobody up.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource as _, ResourceExt as _};
use operator_api::{DirectoryStatus, Relay};
use operator_plan::desired::status_port::{directory_status, is_news, new_key_secret, read_key, status_token};
use relay_formats::facts::Facts;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::watch::Receiver;
use tracing::debug;

use crate::apply::{ApplyError, count};
use crate::cluster::Cluster;
use crate::echo::key;
use crate::relays::GuardedRelay;
use crate::watch::stopped;

/// Owner of `status.directory`.
const MANAGER: &str = "relayfleet-operator-facts";
/// Between two looks at who is to be asked.
const LOOK: Duration = Duration::from_secs(5);
/// Between two questions to one relay. In the public network a consensus comes every hour.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// The most between two questions to a relay that does not answer.
const SILENT_MAX: Duration = Duration::from_secs(15 * 60);
/// Relays asked at once.
const ASKED_AT_ONCE: usize = 64;
/// Relays asked before it is looked again who is to be: of silent ones, as many as are told in ten seconds.
const ASKED_A_ROUND: usize = 256;
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);
/// The relay's form needs about two kilobytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The key that status tokens are made of: made at the first start, kept in the operator's namespace.
pub(crate) async fn status_key(client: &kube::Client, namespace: &str) -> kube::Result<Option<[u8; 32]>> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let fresh = new_key_secret(namespace, &mut rand::rng());
    let name = fresh.name_any();
    if let Some(found) = secrets.get_opt(&name).await? {
        return Ok(read_key(&found));
    }
    match secrets.create(&PostParams::default(), &fresh).await {
        Ok(made) => Ok(read_key(&made)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(read_key(&secrets.get(&name).await?)),
        Err(error) => Err(error),
    }
}

/// When each relay is to be asked, and how often in a row it has not answered.
#[derive(Default)]
struct Calendar(HashMap<ObjectRef<GuardedRelay>, Entry>);

struct Entry {
    /// A new pod is asked at once.
    pod_uid: String,
    due: Instant,
    silent: u32,
}

impl Calendar {
    /// Those whose time has come, first those that answered before: many that are silent hold nobody up.
    fn due(&mut self, relays: &[Arc<GuardedRelay>], now: Instant) -> Vec<Arc<GuardedRelay>> {
        let mut entries = std::mem::take(&mut self.0);
        let mut due = Vec::new();
        for relay in relays {
            let Some(pod_uid) = can_be_asked(relay) else { continue };
            let key = key(relay);
            let known = entries.remove(&key).filter(|entry| entry.pod_uid == pod_uid);
            let entry = known.unwrap_or_else(|| Entry {
                pod_uid: pod_uid.to_owned(),
                due: now,
                silent: 0,
            });
            if entry.due <= now {
                due.push((entry.silent, Arc::clone(relay)));
            }
            self.0.insert(key, entry);
        }
        due.sort_by_key(|(silent, _)| *silent);
        due.into_iter().map(|(_, relay)| relay).collect()
    }

    fn answered(&mut self, relay: &GuardedRelay, well: bool, now: Instant) {
        if let Some(entry) = self.0.get_mut(&key(relay)) {
            entry.silent = if well { 0 } else { entry.silent.saturating_add(1) };
            let wait = LOOK_AGAIN.saturating_mul(1 << entry.silent.min(8)).min(SILENT_MAX);
            entry.due = now + wait;
        }
    }
}

/// The uid of a pod that has said where it can be asked.
fn can_be_asked(relay: &GuardedRelay) -> Option<&str> {
    let status = relay.0.as_ref().ok()?.status.as_ref()?;
    let (Some(_), Some(pod), Some(_)) = (&status.pod_address, &status.pod_uid, status.status_port) else {
        return None;
    };
    Some(pod)
}

/// Runs until asked to stop.
pub(crate) async fn run(cluster: Arc<Cluster>, stop: Receiver<bool>) {
    let asking = async {
        let calendar = Mutex::new(Calendar::default());
        loop {
            tokio::time::sleep(LOOK).await;
            let locked = || calendar.lock().unwrap_or_else(PoisonError::into_inner);
            let due = locked().due(&cluster.relays.state(), Instant::now());
            futures::stream::iter(due.into_iter().take(ASKED_A_ROUND))
                .for_each_concurrent(ASKED_AT_ONCE, |relay| {
                    let cluster = &cluster;
                    async move {
                        let done = match &relay.0 {
                            Ok(relay) => look_at(cluster, relay).await,
                            Err(_) => Ok(()),
                        };
                        if let Err(error) = &done {
                            debug!(
                                relay = relay.name_any(),
                                error = format!("{error:#}"),
                                "no facts of a relay"
                            );
                        }
                        locked().answered(&relay, done.is_ok(), Instant::now());
                    }
                })
                .await;
        }
    };
    tokio::select! {
        () = asking => {}
        () = stopped(stop) => {}
    }
}

async fn look_at(cluster: &Cluster, relay: &Relay) -> anyhow::Result<()> {
    let (Some(key), Some(status)) = (cluster.settings.status_key, &relay.status) else {
        return Ok(());
    };
    let (Some(address), Some(pod), Some(port)) = (&status.pod_address, &status.pod_uid, status.status_port) else {
        return Ok(());
    };
    let address: IpAddr = address.parse()?;
    let facts = ask(SocketAddr::new(address, port), &status_token(&key, relay)).await?;
    // Addresses of pods are used again: another relay may answer there by now.
    let own = status.identity.as_ref().map(|own| own.rsa_fingerprint.as_str());
    ensure!(
        own == Some(facts.identity.fingerprint.to_string().as_str()),
        "another relay answers"
    );
    let directory = directory_status(&facts, pod, SystemTime::now());
    if is_news(status.directory.as_ref(), &directory) {
        write(cluster, relay, &directory).await?;
    }
    Ok(())
}

async fn ask(address: SocketAddr, token: &str) -> anyhow::Result<Facts> {
    let answer = async {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get("/status")
            .header("Host", address.to_string())
            .header("Authorization", format!("Bearer {token}"))
            .body(Empty::<Bytes>::new())?;
        let whole = async {
            let answer = sender.send_request(request).await?;
            ensure!(answer.status().is_success(), "it answers {}", answer.status());
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok(body.map_err(|error| anyhow::anyhow!(error))?.to_bytes())
        };
        let (_, body) = tokio::join!(connection, whole);
        Ok(serde_json::from_slice(&body?)?)
    };
    tokio::time::timeout(ANSWER_TIME_MAX, answer)
        .await
        .context("no answer in time")?
}

async fn write(cluster: &Cluster, relay: &Relay, directory: &DirectoryStatus) -> Result<(), ApplyError> {
    let patch = json!({
        "apiVersion": Relay::api_version(&()),
        "kind": Relay::kind(&()),
        "metadata": {"name": relay.name_any(), "uid": relay.metadata.uid},
        "status": {"directory": directory},
    });
    let relays: Api<Relay> = Api::namespaced(cluster.client.clone(), &relay.namespace().unwrap_or_default());
    let parameters = PatchParams::apply(MANAGER).force();
    let done = relays
        .patch_status(&relay.name_any(), &parameters, &Patch::Apply(&patch))
        .await;
    count(cluster, "Relay", "status", "write what the relay says", done).map(drop)
}
