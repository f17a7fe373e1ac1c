//! One node: containerd, kubelet and kube-proxy in a network namespace and a control group of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::control_plane::await_running;
use super::{images, network, pki};
use crate::command::{command, succeeds};
use crate::process::Known;
use crate::state::Places;
use crate::{cgroup, process};

/// The control groups of all nodes start like this.
pub const CGROUP: &str = "relayfleet-node";

/// A node of a cluster that keeps its state in `places`.
pub struct Node<'a> {
    /// Where everything lies.
    pub places: &'a Places,
    /// 1, 2, ...
    pub number: u8,
}

impl Node<'_> {
    /// The name that `kubectl get nodes` shows.
    pub fn name(&self) -> String {
        format!("node{}", self.number)
    }

    /// The socket of its containerd.
    pub fn socket(&self) -> PathBuf {
        self.run().join("containerd.sock")
    }

    /// `ctr` speaking to its containerd, in Kubernetes' namespace.
    pub fn ctr<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut ctr = command("ctr", ["-n", "k8s.io", "-a"]);
        ctr.arg(self.socket()).args(arguments);
        ctr
    }

    /// Starts everything but does not wait for the node to be Ready.
    ///
    /// # Errors
    /// A program is missing, ends at once or does not answer; the error names its log.
    pub fn start(&self, programs: &Path) -> Result<()> {
        let (state, number) = (&self.places.state, self.number);
        // Its cable is there if it was switched off before.
        if number > 1 && !network::is_laid(number) {
            network::make(number)?;
        }
        cgroup::make(&format!("{CGROUP}{number}"))?;
        pki::make_node(&state.join("pki"), number, network::address(number))?;
        for user in [format!("kubelet{number}"), format!("proxy{number}")] {
            pki::kubeconfig(state, &user)?;
        }
        self.write_configuration()?;
        self.start_containerd()?;
        for archive in images::kept(self.places) {
            images::import_into(self, &archive)?;
        }
        let mut kubelet = command(programs.join("kubelet"), ["--config"]);
        kubelet
            .arg(self.top().join("kubelet.yaml"))
            .arg("--kubeconfig")
            .arg(state.join(format!("kubelet{number}.kubeconfig")));
        kubelet
            .arg("--root-dir")
            .arg(self.top().join("kubelet"))
            .arg("--hostname-override")
            .arg(self.name());
        self.spawn(
            "kubelet",
            kubelet.arg("--node-ip").arg(network::address(number).to_string()),
        )?;
        let mut proxy = command(
            programs.join("kube-proxy"),
            ["--proxy-mode", "nftables", "--cluster-cidr", "198.18.0.0/16"],
        );
        proxy
            .arg("--kubeconfig")
            .arg(state.join(format!("proxy{number}.kubeconfig")));
        proxy.arg("--hostname-override").arg(self.name());
        // 0: leave the sysctls alone, they may not be ours to write.
        proxy.args([
            "--conntrack-max-per-core",
            "0",
            "--conntrack-tcp-timeout-established",
            "0s",
        ]);
        self.spawn("kube-proxy", proxy.args(["--conntrack-tcp-timeout-close-wait", "0s"]))
    }

    fn start_containerd(&self) -> Result<()> {
        self.spawn(
            "containerd",
            command("containerd", ["--config"]).arg(self.top().join("containerd.toml")),
        )?;
        let answers = || succeeds(&mut self.ctr(["version"]));
        await_running(
            self.places,
            &self.process("containerd"),
            Duration::from_secs(60),
            answers,
        )
    }

    /// Pulls its cable: its pods run on while the API server thinks that it is lost.
    ///
    /// # Errors
    /// It is node 1, where the API server is, or `ip` fails.
    pub fn pull_cable(&self) -> Result<()> {
        ensure!(
            self.number > 1,
            "the API server itself lives behind the cable of node 1"
        );
        network::pull_cable(self.number)
    }

    /// Plugs it in again.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn plug_cable(&self) -> Result<()> {
        network::plug_cable(self.number)
    }

    /// Ends everything on it at once, as a power cut does. Its files stay.
    ///
    /// # Errors
    /// A process does not end.
    pub fn cut_power(&self) -> Result<()> {
        // The kubelet first: it would start again what is ended after it.
        for program in ["kubelet", "kube-proxy", "containerd"] {
            let running: Vec<Known> = process::recorded(self.places, &self.process(program))
                .into_iter()
                .collect();
            process::kill_all(&running)?;
        }
        process::kill_all(&cgroup::processes(&format!("{CGROUP}{}", self.number)))?;
        let shims = process::marked(self.places)
            .into_iter()
            .filter(|known| self.is_shim(known.pid));
        process::kill_all(&shims.collect::<Vec<_>>())
    }

    /// containerd's shims name the socket of their containerd.
    fn is_shim(&self, pid: i32) -> bool {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let socket = self.socket();
        line.split(|byte| *byte == 0)
            .any(|word| word == socket.as_os_str().as_encoded_bytes())
    }

    fn spawn(&self, program: &str, command: &mut Command) -> Result<()> {
        process::spawn(
            self.places,
            &self.process(program),
            Some(&network::namespace(self.number)),
            command,
        )
        .map(drop)
    }

    fn process(&self, program: &str) -> String {
        format!("{program}{}", self.number)
    }

    fn top(&self) -> PathBuf {
        self.places.state.join(self.name())
    }

    /// Short, as the paths of sockets must be.
    pub fn run(&self) -> PathBuf {
        self.places.run.join(self.name())
    }

    fn write_configuration(&self) -> Result<()> {
        let top = self.top();
        fs::create_dir_all(top.join("cni"))?;
        fs::create_dir_all(self.run())?;
        fs::write(top.join("containerd.toml"), self.containerd_toml())?;
        fs::write(
            top.join("cni/10-relayfleet.conflist"),
            self.cni_configuration().to_string(),
        )?;
        fs::write(top.join("kubelet.yaml"), self.kubelet_configuration().to_string())?;
        Ok(())
    }

    fn containerd_toml(&self) -> String {
        let (top, run) = (self.top().display().to_string(), self.run().display().to_string());
        format!(
            r#"version = 2
root = "{top}/containerd"
state = "{run}/containerd"
[grpc]
  address = "{run}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{top}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Root without CAP_SYS_RESOURCE may not lower oom_score_adj; runc fails with "can't get final child's PID from pipe".
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{run}/runc"
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{top}/cni"
"#,
            pause = images::pause(),
        )
    }

    fn cni_configuration(&self) -> serde_json::Value {
        serde_json::json!({
            "cniVersion": "0.4.0",
            "name": format!("relayfleet-node{}", self.number),
            "plugins": [
                {
                    "type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": false,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": self.top().join("ipam"),
                        "ranges": [[{"subnet": network::pods(self.number)}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        })
    }

    fn kubelet_configuration(&self) -> serde_json::Value {
        let pki = self.places.state.join("pki");
        serde_json::json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            // 1.35 refuses cgroup v1 unless told otherwise.
            "failCgroupV1": false,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{CGROUP}{}", self.number),
            "containerRuntimeEndpoint": format!("unix://{}", self.socket().display()),
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": pki.join("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": pki.join(format!("kubelet{}.crt", self.number)),
            "tlsPrivateKeyFile": pki.join(format!("kubelet{}.key", self.number)),
            "address": network::address(self.number),
            "failSwapOn": false,
            // A sign of life every five seconds, so that a pulled cable is soon noticed.
            "nodeLeaseDurationSeconds": 20,
            // The images came from no registry and could not be pulled again.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
            "podLogsDir": self.places.state.join(format!("log/pods{}", self.number)),
        })
    }
}
