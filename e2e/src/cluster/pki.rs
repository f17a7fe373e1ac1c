//! Keys and certificates of one cluster: they live and die with it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::network::{self, KUBERNETES_SERVICE};
use crate::command::{command, output};

/// Makes the authority, the API server's and the control plane's certificates and the key for service accounts.
///
/// # Errors
/// openssl fails.
pub fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let authority = format!("req -x509 {NEW_KEY} -keyout ca.key -out ca.crt -days 365 -subj /CN=relayfleet-e2e");
    openssl(folder, &authority)?;
    let names = format!(
        "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:{},IP:{KUBERNETES_SERVICE}",
        network::address(1)
    );
    certificate(folder, "apiserver", "/CN=kube-apiserver", &names)?;
    for (name, subject) in [
        ("admin", "/O=system:masters/CN=admin"),
        ("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client"),
        ("controllers", "/CN=system:kube-controller-manager"),
        ("scheduler", "/CN=system:kube-scheduler"),
        ("provisioner", "/CN=relayfleet-e2e:provisioner"),
    ] {
        certificate(folder, name, subject, &format!("DNS:{name}"))?;
    }
    openssl(folder, "genrsa -out sa.key 2048")?;
    openssl(folder, "rsa -in sa.key -pubout -out sa.pub")
}

/// Node N's kubelet and kube-proxy certificates.
///
/// # Errors
/// openssl fails.
pub fn make_node(folder: &Path, node: u8, address: Ipv4Addr) -> Result<()> {
    let subject = format!("/O=system:nodes/CN=system:node:node{node}");
    certificate(
        folder,
        &format!("kubelet{node}"),
        &subject,
        &format!("IP:{address},DNS:node{node}"),
    )?;
    certificate(
        folder,
        &format!("proxy{node}"),
        "/CN=system:kube-proxy",
        &format!("DNS:proxy{node}"),
    )
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

fn certificate(folder: &Path, name: &str, subject: &str, alternative_names: &str) -> Result<()> {
    openssl(
        folder,
        &format!("req {NEW_KEY} -keyout {name}.key -out {name}.csr -subj {subject}"),
    )?;
    let extensions = format!("extendedKeyUsage=clientAuth,serverAuth\nsubjectAltName={alternative_names}\n");
    fs::write(folder.join(format!("{name}.ext")), extensions)?;
    openssl(
        folder,
        &format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -out {name}.crt \
             -extfile {name}.ext"
        ),
    )
}

fn openssl(folder: &Path, line: &str) -> Result<()> {
    output(command("openssl", line.split(' ')).current_dir(folder)).map(drop)
}

/// Writes a kubeconfig that names everything by its full path, so that it can be used from anywhere while it lasts.
///
/// # Errors
/// The file cannot be written.
pub fn kubeconfig(state: &Path, user: &str) -> Result<PathBuf> {
    let pki = state.join("pki");
    let path = state.join(format!("{user}.kubeconfig"));
    let encoded = |file: String| -> Result<String> {
        let text = output(&mut command("base64", ["-w0".into(), pki.join(file)]))?;
        Ok(text.trim().to_owned())
    };
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "relayfleet", "cluster": {
            "server": format!("https://{}:6443", network::address(1)),
            "certificate-authority-data": encoded("ca.crt".into())?,
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": encoded(format!("{user}.crt"))?,
            "client-key-data": encoded(format!("{user}.key"))?,
        }}],
        "contexts": [{"name": "relayfleet", "context": {"cluster": "relayfleet", "user": user}}],
        "current-context": "relayfleet",
    });
    crate::state::write_whole(&path, &serde_json::to_vec_pretty(&config)?)?;
    Ok(path)
}
