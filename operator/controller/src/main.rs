//! The controller: the thin loop around `operator-plan`, and the only room with a Kubernetes client.

fn main() {}
