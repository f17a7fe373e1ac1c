//! etcd, API server, scheduler and kwok on loopback: everything real but nodes and what runs on them.
//!
//! No controller manager: nothing here needs it while relays come up, and its EndpointSlices for 10,000 Services would be
//! measured with the rest.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::http::Connection;
use crate::command::{command, last_words_of, output, output_with_input};
use crate::programs::{KUBERNETES, repository};

/// Namespace of the fleet.
pub(super) const FLEET: &str = "fleet";
/// Namespace of the operator, its Lease and the keys that it keeps.
pub(super) const SYSTEM: &str = "relayfleet-system";
/// The operator's ServiceAccount, as the chart names it.
pub(super) const OPERATOR: &str = "system:serviceaccount:relayfleet-system:relayfleet";

/// Every write of the operator; nothing of anybody else.
const AUDIT: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: None
    verbs: [get, list, watch]
  - level: Metadata
    users: ['system:serviceaccount:relayfleet-system:relayfleet']
  - level: None
";

/// Claims stay unbound, for nobody makes volumes: the scheduler is not to wait for them.
const SCHEDULER: &str = "
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: false}
clientConnection: {kubeconfig: KUBECONFIG, qps: 5000, burst: 5000}
profiles:
  - schedulerName: default-scheduler
    plugins:
      multiPoint:
        disabled: [{name: VolumeBinding}, {name: VolumeZone}, {name: NodeVolumeLimits}]
";

/// Pods on one simulated node.
const PODS_PER_NODE: usize = 250;
/// Until a program answers, on a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(180);

/// All of it; ended, and its folder removed, when dropped.
pub(super) struct Server {
    pub(super) folder: PathBuf,
    programs: PathBuf,
    children: Vec<(String, Child)>,
    pub(super) proxy: SocketAddr,
}

impl Server {
    pub(super) fn start(programs: &Path, folder: PathBuf) -> Result<Self> {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut server = Self {
            folder,
            programs: programs.to_owned(),
            children: Vec::new(),
            proxy: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let [client, peer, secure, proxy] = free_ports()?;
        server.proxy.set_port(proxy);
        server.write_files(secure)?;
        server.start_etcd(client, peer)?;
        server.start_apiserver(client, secure)?;
        server.await_yes("the API server", |server| {
            server.kubectl(&["get", "--raw=/readyz"]).is_ok()
        })?;
        let port = format!("--port={proxy}");
        server.spawn("kubectl", &["proxy", &port, "--kubeconfig", "admin.kubeconfig"])?;
        server.await_yes("kubectl proxy", |server| Connection::open(server.proxy).is_ok())?;
        Ok(server)
    }

    /// Scheduler, kwok and as many nodes as so many pods need.
    pub(super) fn start_nodes(&mut self, pods: usize) -> Result<()> {
        self.spawn("kube-scheduler", &["--config=scheduler.yaml", "--secure-port=0"])?;
        self.spawn(
            "kwok",
            &[
                "--kubeconfig=admin.kubeconfig",
                "--manage-all-nodes=false",
                "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
                "--node-lease-duration-seconds=200",
                "--cidr=10.96.0.1/16",
                "--v=WARN",
            ],
        )?;
        let nodes = pods.div_ceil(PODS_PER_NODE) + 1;
        let mut connection = self.connect()?;
        for number in 0..nodes {
            let room = json!({"cpu": "10000", "memory": "100Ti", "pods": (PODS_PER_NODE + 50).to_string()});
            let node = json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": format!("simulated-{number}"), "annotations": {"kwok.x-k8s.io/node": "fake"}},
                "status": {"capacity": room, "allocatable": room},
            });
            let answer = connection.ask("POST", "/api/v1/nodes", &node.to_string())?;
            anyhow::ensure!(answer.code == 201, "a node: {}", String::from_utf8_lossy(&answer.body));
        }
        self.await_yes("the simulated nodes", |server| {
            let ready = "-o=jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}";
            let said = server.kubectl(&["get", "nodes", ready]).unwrap_or_default();
            said.split_whitespace().filter(|word| *word == "True").count() == nodes
        })
    }

    /// Our definitions and the rights that the operator has in production.
    pub(super) fn apply_chart(&mut self) -> Result<()> {
        for namespace in [SYSTEM, FLEET] {
            self.kubectl(&["create", "namespace", namespace])?;
        }
        let mut helm = command(self.programs.join("helm"), ["template", "relayfleet"]);
        let chart = output(helm.arg(repository().join("charts/relayfleet")).args([
            "-n",
            SYSTEM,
            "--skip-tests",
            &format!("--kube-version={KUBERNETES}"),
        ]))?;
        output_with_input(&mut self.kubectl_command(&["apply", "-f", "-"]), &chart)?;
        self.await_yes("the API server to know Relays", |server| {
            server.kubectl(&["get", "relays", "-A"]).is_ok()
        })
    }

    pub(super) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.kubectl_command(arguments))
    }

    fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut kubectl = command(self.programs.join("kubectl"), ["--kubeconfig"]);
        kubectl.arg(self.folder.join("admin.kubeconfig")).args(arguments);
        kubectl
    }

    pub(super) fn connect(&self) -> Result<Connection> {
        Connection::open(self.proxy)
    }

    /// CPU seconds of each program so far.
    pub(super) fn cpu_seconds(&self) -> Vec<(String, f64)> {
        let of = |(name, child): &(String, Child)| (name.clone(), super::cost::cpu_seconds(child.id()));
        self.children.iter().map(of).collect()
    }

    pub(super) fn rss_mib(&self, name: &str) -> f64 {
        let child = self.children.iter().find(|(other, _)| other == name);
        child.map_or(0.0, |(_, child)| super::cost::memory(child.id()).at_rest_mib)
    }

    fn write_files(&self, port: u16) -> Result<()> {
        for user in ["admin", "operator"] {
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: it\n\
                 clusters: [{{name: it, cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority: certs/apiserver.crt}}}}]\n\
                 users: [{{name: it, user: {{token: {user}}}}}]\n\
                 contexts: [{{name: it, context: {{cluster: it, user: it, namespace: {SYSTEM}}}}}]\n"
            );
            fs::write(self.folder.join(format!("{user}.kubeconfig")), text)?;
        }
        let tokens = format!(
            "admin,admin,1,system:masters\noperator,{OPERATOR},2,\"system:authenticated,system:serviceaccounts\"\n"
        );
        fs::write(self.folder.join("tokens.csv"), tokens)?;
        fs::write(self.folder.join("audit.yaml"), AUDIT)?;
        let admin = self.folder.join("admin.kubeconfig").display().to_string();
        fs::write(
            self.folder.join("scheduler.yaml"),
            SCHEDULER.replace("KUBECONFIG", &admin),
        )?;
        let mut openssl = command("openssl", ["genrsa", "-out", "accounts.key", "2048"]);
        output(openssl.current_dir(&self.folder)).map(drop)
    }

    fn start_etcd(&mut self, client: u16, peer: u16) -> Result<()> {
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        // Nothing here must outlive a power cut, and fsync is most of what etcd costs.
        self.spawn(
            "etcd",
            &[
                "--data-dir=etcd",
                "--unsafe-no-fsync",
                "--quota-backend-bytes=8589934592",
                "--log-level=warn",
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
                "--listen-peer-urls",
                &peer,
            ],
        )
    }

    fn start_apiserver(&mut self, etcd: u16, port: u16) -> Result<()> {
        self.spawn(
            "kube-apiserver",
            &[
                &format!("--etcd-servers=http://127.0.0.1:{etcd}"),
                &format!("--secure-port={port}"),
                "--bind-address=127.0.0.1",
                "--cert-dir=certs",
                "--token-auth-file=tokens.csv",
                "--authorization-mode=RBAC",
                "--service-account-issuer=https://test.invalid",
                "--service-account-key-file=accounts.key",
                "--service-account-signing-key-file=accounts.key",
                "--service-cluster-ip-range=198.19.0.0/17",
                // Accounts and taints are the controller manager's work, and there is none.
                "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
                "--audit-policy-file=audit.yaml",
                "--audit-log-path=audit.log",
                // Read to its end as it grows: a new file after 100 MB, as is usual, would hide writes.
                "--audit-log-maxsize=65536",
            ],
        )
    }

    /// In a session that ends with ours, however ours ends.
    fn spawn(&mut self, name: &str, arguments: &[&str]) -> Result<()> {
        let log = File::create(self.folder.join(format!("{name}.log")))?;
        let mut program = command("setpriv", ["--pdeathsig", "KILL"]);
        program.arg(self.programs.join(name)).args(arguments);
        program.current_dir(&self.folder).stdout(log.try_clone()?).stderr(log);
        let child = program.stdin(Stdio::null()).spawn();
        self.children
            .push((name.to_owned(), child.with_context(|| format!("cannot start {name}"))?));
        Ok(())
    }

    fn await_yes(&mut self, what: &str, yes: impl Fn(&Self) -> bool) -> Result<()> {
        let start = Instant::now();
        while !yes(self) {
            let mut ended = None;
            for (name, child) in &mut self.children {
                if child.try_wait()?.is_some() {
                    ended = Some(name.clone());
                }
            }
            if let Some(name) = ended {
                bail!(
                    "{name} ended\n{}",
                    last_words_of(&self.folder.join(format!("{name}.log")))
                );
            }
            if start.elapsed() > PATIENCE {
                bail!("gave up waiting for {what}; the logs: {}", self.folder.display());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for (_, child) in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Free when asked; all are held until the last is found, so that they differ.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
