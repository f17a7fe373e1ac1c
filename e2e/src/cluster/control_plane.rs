//! etcd, the API server with the admission of a production cluster, controllers and scheduler, all in node 1's
//! network namespace.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::network::{self, SERVICES};
use crate::command::{await_yes, command};
use crate::process;
use crate::state::Places;

/// Every write is remembered with who made it, and everything that the operator asks for, reads too: tests count on it
/// that an operator wrote nothing, and that nothing was forbidden to it. Of others' reads there are too many.
const AUDIT_POLICY: &str = r#"apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
  users: ["system:serviceaccount:relayfleet-system:relayfleet"]
- level: None
  verbs: [get, list, watch]
- level: None
  resources: [{group: "", resources: [events]}, {group: coordination.k8s.io, resources: [leases]}]
- level: Metadata
"#;

/// Starts etcd and the API server and waits until it answers.
///
/// # Errors
/// One of them ends, or the API server is not ready within two minutes.
pub fn start_apiserver(places: &Places, programs: &Path) -> Result<()> {
    let etcd_url = "http://127.0.0.1:2379";
    let mut etcd = command(
        programs.join("etcd"),
        ["--listen-client-urls", etcd_url, "--advertise-client-urls"],
    );
    etcd.args([
        etcd_url,
        "--listen-peer-urls",
        "http://127.0.0.1:2380",
        "--log-level",
        "warn",
    ]);
    // Nothing here must outlive a power cut, and fsync is most of what etcd costs.
    etcd.arg("--unsafe-no-fsync")
        .arg("--data-dir")
        .arg(places.state.join("etcd"));
    start(places, "etcd", &mut etcd)?;

    fs::write(places.state.join("audit-policy.yaml"), AUDIT_POLICY)?;
    let address = network::address(1).to_string();
    let mut server = command(
        programs.join("kube-apiserver"),
        ["--etcd-servers", etcd_url, "--secure-port", "6443"],
    );
    server.args(["--bind-address", &address, "--advertise-address", &address]);
    server.args(["--client-ca-file", "pki/ca.crt", "--tls-cert-file", "pki/apiserver.crt"]);
    server.args([
        "--tls-private-key-file",
        "pki/apiserver.key",
        "--service-account-key-file",
        "pki/sa.pub",
    ]);
    server.args(["--service-account-signing-key-file", "pki/sa.key"]);
    server.args(["--service-account-issuer", "https://kubernetes.default.svc"]);
    // ValidatingAdmissionPolicy is on by default; these two come on top.
    server.args([
        "--authorization-mode",
        "Node,RBAC",
        "--enable-admission-plugins",
        "NodeRestriction,PodSecurity",
    ]);
    server.args(["--service-cluster-ip-range", SERVICES, "--allow-privileged=true"]);
    server.args(["--kubelet-client-certificate", "pki/kubelet-client.crt"]);
    server.args([
        "--kubelet-client-key",
        "pki/kubelet-client.key",
        "--kubelet-certificate-authority",
        "pki/ca.crt",
    ]);
    // Node names are in no DNS.
    server.args(["--kubelet-preferred-address-types", "InternalIP"]);
    server.args([
        "--audit-policy-file",
        "audit-policy.yaml",
        "--audit-log-path",
        "log/audit.log",
    ]);
    start(places, "kube-apiserver", &mut server)?;
    let ready = || {
        let mut ask = command(programs.join("kubectl"), ["get", "--raw", "/readyz"]);
        crate::command::succeeds(ask.env("KUBECONFIG", places.state.join("admin.kubeconfig")))
    };
    await_running(places, "kube-apiserver", Duration::from_secs(120), ready)
}

/// Starts controllers and scheduler.
///
/// # Errors
/// One cannot be started.
pub fn start_controllers(places: &Places, programs: &Path) -> Result<()> {
    let mut controllers = command(programs.join("kube-controller-manager"), ["--kubeconfig"]);
    controllers.args([
        "controllers.kubeconfig",
        "--service-account-private-key-file",
        "pki/sa.key",
    ]);
    // Twice what a kubelet here takes between two signs of life at most; Kubernetes' own choice is 50 s.
    controllers.args(["--node-monitor-grace-period", "20s"]);
    controllers.args([
        "--root-ca-file",
        "pki/ca.crt",
        "--use-service-account-credentials",
        "--leader-elect=false",
    ]);
    controllers.args([
        "--cluster-signing-cert-file",
        "pki/ca.crt",
        "--cluster-signing-key-file",
        "pki/ca.key",
    ]);
    start(places, "kube-controller-manager", &mut controllers)?;
    let mut scheduler = command(
        programs.join("kube-scheduler"),
        ["--kubeconfig", "scheduler.kubeconfig"],
    );
    start(places, "kube-scheduler", scheduler.arg("--leader-elect=false"))
}

/// Waits, but not longer than the process lives.
///
/// # Errors
/// The process ended or the time is over; both name its log.
pub fn await_running(places: &Places, name: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
    let mut dead = false;
    let waited = await_yes(name, limit, || {
        dead = process::recorded(places, name).is_none();
        dead || ready()
    });
    let log = places.log(name);
    let last = || {
        format!(
            "{}the whole log: {}",
            crate::command::last_words_of(&log),
            log.display()
        )
    };
    waited.with_context(last)?;
    if dead {
        anyhow::bail!("{name} ended\n{}", last());
    }
    Ok(())
}

fn start(places: &Places, name: &str, program: &mut Command) -> Result<()> {
    program.current_dir(&places.state);
    process::spawn(places, name, Some(&network::namespace(1)), program).map(drop)
}
