//! The operator, the definitions and the chart against a real API server and etcd, without any node.
//!
//! They need Kubernetes' programs, so plain `cargo test` passes them over; `e2e/test apiserver` builds the programs and
//! runs them: `RELAYFLEET_BIN=DIR cargo test -p operator-controller --test apiserver -- --ignored`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests throughout

mod audit;
mod changes;
mod chart;
mod custody;
mod deaths;
mod facts;
mod families;
mod fence;
mod identity;
mod kubelet;
mod leader;
mod manifests;
mod operator;
mod pools;
mod rounds;
mod server;
mod sets;
