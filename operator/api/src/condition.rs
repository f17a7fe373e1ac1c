//! Types and reasons of conditions: the words by which a Relay says how it is.
//!
//! A type is a question with a positive answer, unless it says otherwise; a reason is one CamelCase word for why; the message says what happened
//! and what to do about it.

/// The operator's promise: the pod runs what the spec asks for, and the ORPort takes connections.
pub const READY: &str = "Ready";
/// The relay's keys exist, are whole, and are the ones that the status names.
pub const IDENTITY_BOUND: &str = "IdentityBound";
/// The spec and what it refers to can be turned into a torrc.
pub const CONFIG_ACCEPTED: &str = "ConfigAccepted";
/// The pod is the one that the spec, the network and the operator's images ask for.
pub const UPDATED: &str = "Updated";
/// No other process of this identity can be running. `Unknown` while the last pod's end is not proven: nothing is started.
pub const FENCED: &str = "Fenced";

/// The signing key that the pod has been given is good for a while. Without it the relay stops.
pub const SIGNING_KEY_FRESH: &str = "SigningKeyFresh";

/// The Tor network lists the relay as running. The network's answer: `Ready` does not wait for it.
pub const IN_CONSENSUS: &str = "InConsensus";
/// The consensus lists the relay where it is not: another process publishes with its keys. True is bad.
pub const IDENTITY_CONFLICT: &str = "IdentityConflict";
/// The relay tells the network that it was overloaded in the last three days. True is bad.
pub const OVERLOADED: &str = "Overloaded";
/// Of a RelaySet: something is still to be done.
pub const PROGRESSING: &str = "Progressing";

/// The relay sees the addresses of those who connect, or its defences would take them all for one.
pub const SOURCE_KEPT: &str = "SourceKept";

/// Every condition type of a Relay, in the order in which they stand in the status.
pub const TYPES: [&str; 7] = [
    READY,
    IDENTITY_BOUND,
    SIGNING_KEY_FRESH,
    CONFIG_ACCEPTED,
    UPDATED,
    FENCED,
    SOURCE_KEPT,
];
