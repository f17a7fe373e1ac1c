//! An API server with etcd of its own, shared by the tests that run at one time.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use relay_formats::rsa_key::RsaSecret;
use serde_json::Value;

/// What a machine that is busy with other tests may need.
const PATIENCE: Duration = Duration::from_secs(600);

/// Where operators keep the keys that no relay gets.
pub(crate) const KEYS: &str = "relayfleet-keys";

/// The operator's ServiceAccount, as the chart makes it.
pub(crate) const OPERATOR: &str = "system:serviceaccount:relayfleet-system:relayfleet";

/// Where the operator of one namespace is at home.
pub(crate) const HOME_OF_ONE: &str = "relayfleet-one";

/// The ServiceAccount of an operator of one namespace.
pub(crate) const OPERATOR_OF_ONE: &str = "system:serviceaccount:relayfleet-one:relayfleet";

/// Killed, and its files removed, when the last test that uses it ends.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    programs: PathBuf,
    etcd: Child,
    apiserver: Child,
}

/// The one that runs, or a new one with our chart applied.
pub(crate) fn server() -> Arc<Server> {
    static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = shared.upgrade() {
        return running;
    }
    let fresh = Arc::new(Server::start());
    *shared = Arc::downgrade(&fresh);
    fresh
}

/// One that no other test uses.
pub(crate) fn server_alone() -> Arc<Server> {
    Arc::new(Server::start())
}

impl Server {
    fn start() -> Self {
        let programs = PathBuf::from(std::env::var_os("RELAYFLEET_BIN").expect(
            "RELAYFLEET_BIN must name the folder with etcd, kube-apiserver, kubectl and helm; `e2e/test apiserver` sets it",
        ));
        let folder = tempfile::tempdir().unwrap();
        write_files(folder.path());
        let [client, peer, secure] = free_ports();
        let etcd = start_etcd(&programs, folder.path(), client, peer);
        let apiserver = start_apiserver(&programs, folder.path(), client, secure);
        let server = Self {
            folder,
            programs,
            etcd,
            apiserver,
        };
        server.write_kubeconfig("admin", secure);
        server.write_kubeconfig("operator", secure);
        server.write_kubeconfig("operator-of-one", secure);
        await_yes("the API server to be ready", || {
            server.try_kubectl(&["get", "--raw=/readyz"]).status.success()
        });
        server.apply_chart();
        server
    }

    fn apply_chart(&self) {
        self.kubectl(&["create", "namespace", "relayfleet-system"]);
        self.kubectl(&["create", "namespace", KEYS]);
        self.apply(&self.rendered_chart(&["--skip-tests"]));
        await_yes("the API server to know Relays", || {
            self.try_kubectl(&["get", "relays", "-A"]).status.success()
        });
    }

    /// What `helm template` makes of our chart with these arguments.
    pub(crate) fn rendered_chart(&self, arguments: &[&str]) -> String {
        let done = self.helm(
            &[
                &["template", "relayfleet", CHART, "-n", "relayfleet-system", KUBERNETES],
                arguments,
            ]
            .concat(),
        );
        assert!(done.status.success(), "helm: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    pub(crate) fn helm(&self, arguments: &[&str]) -> Output {
        Command::new(self.programs.join("helm"))
            .args(arguments)
            .output()
            .expect("helm starts")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A namespace that takes only what Pod Security `restricted` allows.
    pub(crate) fn namespace(&self, name: &str) {
        self.kubectl(&["create", "namespace", name]);
        self.kubectl(&[
            "label",
            "namespace",
            name,
            "pod-security.kubernetes.io/enforce=restricted",
        ]);
    }

    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("kubectl starts")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut kubectl = Command::new(self.programs.join("kubectl"));
        kubectl
            .arg("--kubeconfig")
            .arg(self.path("admin.kubeconfig"))
            .args(arguments);
        kubectl
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let done = self.try_kubectl(arguments);
        let (said, complained) = (
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr),
        );
        assert!(done.status.success(), "kubectl {arguments:?}: {said}{complained}");
        said.into_owned()
    }

    pub(crate) fn get(&self, namespace: &str, what: &str) -> Option<Value> {
        let done = self.try_kubectl(&["-n", namespace, "get", what, "-o", "json"]);
        done.status
            .success()
            .then(|| serde_json::from_slice(&done.stdout).unwrap())
    }

    /// `kubectl apply -f -`; what it complained of if it was refused.
    pub(crate) fn try_apply(&self, text: &str) -> Result<(), String> {
        self.feed(&["apply", "-f", "-"], text)
    }

    /// A POST to this path.
    pub(crate) fn create_raw(&self, path: &str, text: &str) {
        self.feed(&["create", "--raw", path, "-f", "-"], text).unwrap();
    }

    fn feed(&self, arguments: &[&str], text: &str) -> Result<(), String> {
        let mut kubectl = self.command(arguments);
        let mut kubectl = kubectl
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        kubectl.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let done = kubectl.wait_with_output().unwrap();
        done.status
            .success()
            .then_some(())
            .ok_or_else(|| String::from_utf8_lossy(&done.stderr).into_owned())
    }

    pub(crate) fn apply(&self, text: &str) {
        self.try_apply(text).unwrap();
    }

    fn write_kubeconfig(&self, user: &str, port: u16) {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: it\n\
             clusters: [{{name: it, cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority: certs/apiserver.crt}}}}]\n\
             users: [{{name: it, user: {{token: {user}}}}}]\n\
             contexts: [{{name: it, context: {{cluster: it, user: it, namespace: relayfleet-system}}}}]\n"
        );
        fs::write(self.path(&format!("{user}.kubeconfig")), text).unwrap();
    }
}

impl Drop for Server {
    /// All stories run under the chart's roles: whatever they did, nothing was forbidden.
    fn drop(&mut self) {
        let forbidden = super::audit::forbidden(self);
        for child in [&mut self.apiserver, &mut self.etcd] {
            let _ = child.kill();
            let _ = child.wait();
        }
        assert!(
            std::thread::panicking() || forbidden.is_empty(),
            "forbidden: {forbidden:?}"
        );
    }
}

/// The chart, from this package's folder, where Cargo runs its tests.
pub(crate) const CHART: &str = "../../charts/relayfleet";
/// Helm asks no cluster when it renders.
pub(crate) const KUBERNETES: &str = "--kube-version=1.35.4";

fn write_files(folder: &Path) {
    let key = RsaSecret::generate(&mut rand::rng()).unwrap().to_pem().unwrap();
    fs::write(folder.join("accounts.key"), key.as_bytes()).unwrap();
    let tokens = format!(
        "admin,admin,1,system:masters\noperator,{OPERATOR},2,system:authenticated\n\
         operator-of-one,{OPERATOR_OF_ONE},3,system:authenticated\n"
    );
    fs::write(folder.join("tokens.csv"), tokens).unwrap();
    fs::write(folder.join("audit.yaml"), super::audit::POLICY).unwrap();
}

fn start_etcd(programs: &Path, folder: &Path, client: u16, peer: u16) -> Child {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let mut etcd = Command::new(programs.join("etcd"));
    etcd.arg("--data-dir")
        .arg(folder.join("etcd"))
        .args(["--unsafe-no-fsync", "--listen-client-urls", &client]);
    etcd.args(["--advertise-client-urls", &client, "--listen-peer-urls", &peer]);
    spawn(etcd, &folder.join("etcd.log"))
}

fn start_apiserver(programs: &Path, folder: &Path, etcd: u16, port: u16) -> Child {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut apiserver = Command::new(programs.join("kube-apiserver"));
    apiserver.args([
        &format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        &format!("--secure-port={port}"),
        "--bind-address=127.0.0.1",
        &format!("--cert-dir={}", file("certs")),
        &format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://test.invalid",
        &format!("--service-account-key-file={}", file("accounts.key")),
        &format!("--service-account-signing-key-file={}", file("accounts.key")),
        "--service-cluster-ip-range=198.19.0.0/17",
        // Nobody makes the accounts: that is the controller manager's work. Owners are checked as on strict clusters.
        "--disable-admission-plugins=ServiceAccount",
        "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
        &format!("--audit-policy-file={}", file("audit.yaml")),
        &format!("--audit-log-path={}", file("audit.log")),
    ]);
    spawn(apiserver, &folder.join("apiserver.log"))
}

fn spawn(mut command: Command, log: &Path) -> Child {
    let log = fs::File::create(log).unwrap();
    command
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .stdin(Stdio::null());
    command
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()))
}

/// Free when asked; all are held until the last is found, so that they differ.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// Asks again until the answer is yes.
pub(crate) fn await_yes(what: &str, mut yes: impl FnMut() -> bool) {
    let start = Instant::now();
    while !yes() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
