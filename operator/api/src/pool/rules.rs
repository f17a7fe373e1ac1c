//! The rules that the API server checks at apply. Each message says what to write instead.

use kube::core::Rule;

pub(super) fn ipv4() -> Rule {
    Rule::new("isIP(self) && ip(self).family() == 4").message("write an IPv4 address, for example 203.0.113.7")
}

pub(super) fn ports_in_order() -> Rule {
    Rule::new("self.first <= self.last").message("first must not be above last")
}

/// Kubernetes' own default for `--service-node-port-range`; clusters that have another are rare, and the API server tells.
pub(super) fn node_port_range() -> Rule {
    Rule::new("self.exposure != 'NodePort' || self.ports.first >= 30000")
        .field_path(".ports")
        .message("exposure is NodePort: use ports that Kubernetes gives to Services, 30000 to 32767")
}

pub(super) fn load_balancer_of_load_balancers() -> Rule {
    Rule::new("self.exposure == 'LoadBalancer' || !has(self.loadBalancer)")
        .message("loadBalancer: leave it out, or set exposure to LoadBalancer")
}
