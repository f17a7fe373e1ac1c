//! What scheduler, kubelet and garbage collector do for the pods of one namespace, as far as our operator can see it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use operator_api::{Relay, RelaySet};
use serde_json::json;

use crate::rounds::Scene;

/// A thread; ends with the test.
pub(crate) struct Kubelet {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Kubelet {
    /// On a node of the namespace's name. Pods become ready, and end when they are asked to.
    pub(crate) fn start(scene: &Scene) -> Self {
        scene.node(scene.namespace);
        let stop = Arc::new(AtomicBool::new(false));
        let (file, namespace, asked) = (
            scene.server.path("admin.kubeconfig"),
            scene.namespace,
            Arc::clone(&stop),
        );
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let kubeconfig = Kubeconfig::read_from(file).unwrap();
                let options = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
                let client = Client::try_from(config).unwrap();
                while !asked.load(Ordering::Relaxed) {
                    // A refusal means that somebody was faster: the next look tells.
                    let _ = look(&client, namespace).await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

async fn look(client: &Client, namespace: &str) -> kube::Result<()> {
    let all = ListParams::default();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let relays: Api<Relay> = Api::namespaced(client.clone(), namespace);
    let sets: Api<RelaySet> = Api::namespaced(client.clone(), namespace);
    // Owners after what they own: an owner made in between is not missed.
    let (found_pods, found_relays, found_sets) =
        (pods.list(&all).await?, relays.list(&all).await?, sets.list(&all).await?);
    let owners: BTreeSet<String> = found_relays
        .iter()
        .filter_map(|relay| relay.uid())
        .chain(found_sets.iter().filter_map(|set| set.uid()))
        .collect();
    for relay in &found_relays {
        let orphan = relay
            .owner_references()
            .iter()
            .any(|owner| !owners.contains(&owner.uid));
        if orphan && relay.metadata.deletion_timestamp.is_none() {
            relays.delete(&relay.name_any(), &DeleteParams::default()).await?;
        }
    }
    for pod in &found_pods {
        let orphan = pod.owner_references().iter().any(|owner| !owners.contains(&owner.uid));
        if orphan && pod.metadata.deletion_timestamp.is_none() {
            pods.delete(&pod.name_any(), &DeleteParams::default()).await?;
        } else {
            care(&pods, client, namespace, pod).await?;
        }
    }
    Ok(())
}

async fn care(pods: &Api<Pod>, client: &Client, namespace: &str, pod: &Pod) -> kube::Result<()> {
    let name = pod.name_any();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.clone())
        .unwrap_or_default();
    let going = pod.metadata.deletion_timestamp.is_some();
    let says = |phase: &str, ready: &str| {
        let conditions = json!([{"type": "Ready", "status": ready}]);
        Patch::Merge(
            json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": phase, "podIP": "198.18.1.7", "conditions": conditions}}),
        )
    };
    let parameters = PatchParams::default();
    match (node, phase.as_str(), going) {
        (None, _, false) => {
            let binding = json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "uid": pod.metadata.uid},
                "target": {"apiVersion": "v1", "kind": "Node", "name": namespace},
            });
            let pods = kube::core::Request::new(<Pod as kube::Resource>::url_path(&(), Some(namespace)));
            let body = binding.to_string().into_bytes();
            let request = pods.create_subresource("binding", &name, &PostParams::default(), body);
            let request = request.map_err(kube::Error::BuildRequest)?;
            client.request::<serde_json::Value>(request).await.map(drop)
        }
        (Some(_), "Pending" | "", false) => pods
            .patch_status(&name, &parameters, &says("Running", "True"))
            .await
            .map(drop),
        (Some(_), "Pending" | "Running" | "", true) => {
            pods.patch_status(&name, &parameters, &says("Succeeded", "False"))
                .await?;
            let last = DeleteParams {
                preconditions: Some(kube::api::Preconditions {
                    uid: pod.metadata.uid.clone(),
                    resource_version: None,
                }),
                ..DeleteParams::default().grace_period(0)
            };
            pods.delete(&name, &last).await.map(drop)
        }
        _ => Ok(()),
    }
}
