//! What the API server says that the operator did.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::server::{OPERATOR, Server};

/// Records what our operator asks for, once it was answered; bodies are not kept.
pub(crate) const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: Metadata
    users: ['system:serviceaccount:relayfleet-system:relayfleet', 'system:serviceaccount:relayfleet-one:relayfleet']
  - level: None
";

/// One request of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) verb: String,
    /// With the subresource: `relays/status`.
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) code: u64,
    /// By the roles. A quota or Pod Security answer 403 too, of one who may.
    pub(crate) denied: bool,
    /// Of the program, with its instance and the generation of its Lease.
    pub(crate) agent: String,
    /// When the API server had it, RFC 3339 with microseconds: sorts as text.
    pub(crate) received: String,
}

impl Request {
    pub(crate) fn is_write(&self) -> bool {
        !["get", "list", "watch"].contains(&self.verb.as_str())
    }
}

/// All requests of operators in this namespace so far.
pub(crate) fn requests(server: &Server, namespace: &str) -> Vec<Request> {
    all_requests(server)
        .into_iter()
        .filter(|request| request.namespace == namespace)
        .collect()
}

/// Those that changed something, without the Lease's and events.
pub(crate) fn writes(server: &Server, namespace: &str) -> Vec<Request> {
    let about_the_world = |request: &Request| !["leases", "events"].contains(&request.resource.as_str());
    let done = |request: &Request| request.is_write() && request.code < 400;
    requests(server, namespace)
        .into_iter()
        .filter(done)
        .filter(about_the_world)
        .collect()
}

/// How often this verb was done to this kind.
pub(crate) fn count(server: &Server, namespace: &str, verb: &str, resource: &str) -> usize {
    let this = |request: &&Request| request.verb == verb && request.resource == resource;
    writes(server, namespace).iter().filter(this).count()
}

/// The names of which this was asked for, each once, however it was answered. A request broken off before it was read has
/// no name and did nothing.
pub(crate) fn asked(server: &Server, namespace: &str, verb: &str, resource: &str) -> BTreeSet<String> {
    let all = requests(server, namespace).into_iter();
    all.filter(|request| request.verb == verb && request.resource == resource)
        .map(|request| request.name)
        .filter(|name| !name.is_empty())
        .collect()
}

/// What was refused for want of rights, but for the one thing that a story lets the operator try in vain.
pub(crate) fn forbidden(server: &Server) -> Vec<Request> {
    let in_vain = |request: &Request| request.verb == "delete" && request.namespace == "destroyed";
    let all = all_requests(server).into_iter();
    all.filter(|request| request.denied && !in_vain(request)).collect()
}

pub(crate) fn all_requests(server: &Server) -> Vec<Request> {
    requests_of(server, OPERATOR)
}

pub(crate) fn requests_of(server: &Server, user: &str) -> Vec<Request> {
    let log = std::fs::read_to_string(server.path("audit.log")).unwrap_or_default();
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    entries
        .filter(|entry| entry["user"]["username"] == user)
        .map(|entry| request(&entry))
        .collect()
}

fn request(entry: &Value) -> Request {
    let text = |path: &str| {
        entry
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (resource, sub) = (text("/objectRef/resource"), text("/objectRef/subresource"));
    Request {
        verb: text("/verb"),
        resource: if sub.is_empty() {
            resource
        } else {
            format!("{resource}/{sub}")
        },
        namespace: text("/objectRef/namespace"),
        name: text("/objectRef/name"),
        denied: entry["annotations"]["authorization.k8s.io/decision"] == "forbid",
        agent: text("/userAgent"),
        received: text("/requestReceivedTimestamp"),
        code: entry
            .pointer("/responseStatus/code")
            .and_then(Value::as_u64)
            .unwrap_or_default(),
    }
}
