//! Names of what belongs to a Relay, and the labels by which its owner finds it.

/// Who made it: on every object of ours (`app.kubernetes.io/managed-by`).
pub const MANAGED_BY: &str = "relayfleet";
/// Label key for [`MANAGED_BY`].
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label key: what kind of program, always `tor-relay`.
pub const LABEL_NAME: &str = "app.kubernetes.io/name";
/// Label key: name of the Relay that the object belongs to.
pub const LABEL_RELAY: &str = "relayfleet.io/relay";
/// Label key: name of the RelaySet that the Relay, and what belongs to it, is of.
pub const LABEL_SET: &str = "relayfleet.io/set";
/// Label key: role of the relay, in lower case.
pub const LABEL_ROLE: &str = "relayfleet.io/role";
/// Annotation of the identity Secret: RSA fingerprint, 40 upper-case hexadecimal digits.
pub const ANNOTATION_RSA: &str = "relayfleet.io/rsa-fingerprint";
/// Annotation of the identity Secret: Ed25519 identity, 43 characters of base64.
pub const ANNOTATION_ED25519: &str = "relayfleet.io/ed25519-id";
/// Annotation of the pod: SHA-256 of what the pod was made from; another value asks for another pod.
pub const ANNOTATION_POD_HASH: &str = "relayfleet.io/pod-hash";
/// Annotation of the pod: SHA-256 of the torrc that it should have by now. Changing it makes the node look at the ConfigMap
/// at once instead of within its minute.
pub const ANNOTATION_TORRC_HASH: &str = "relayfleet.io/torrc-hash";
/// Annotation of a pod, set by a person: the pod's own uid says "its process has certainly ended, start the next".
pub const ANNOTATION_CONFIRM_FENCED: &str = "relayfleet.io/confirm-fenced";
/// Annotation of a Relay of a RelaySet: SHA-256 of what the set last wrote of it.
pub const ANNOTATION_TEMPLATE_HASH: &str = "relayfleet.io/template-hash";
/// Annotation of a Relay of a RelaySet: the uid of the pod whose turn it is to be replaced.
pub const ANNOTATION_TURN: &str = "relayfleet.io/turn";
/// Finalizer of a Relay whose owner confirmed that its identity is to be deleted with it.
pub const FINALIZER_RELAY: &str = "relayfleet.io/deletion";
/// Finalizer of the pod: its object, which is the lock on the identity, stays until it is proven that its process ended.
pub const FINALIZER_POD: &str = "relayfleet.io/at-most-once";
/// Finalizer of the identity Secret. The operator never takes it away: only a person may let an identity go.
pub const FINALIZER_IDENTITY: &str = "relayfleet.io/identity";
/// Type of the identity Secret.
pub const SECRET_TYPE_IDENTITY: &str = "relayfleet.io/identity";

/// Annotation of the identity Secret: which [`crate::Custody`] it was made for; without it, `InPod`.
pub const ANNOTATION_CUSTODY: &str = "relayfleet.io/custody";
/// Annotation of the signing Secret: when its certificate ends, as RFC 3339 writes times.
pub const ANNOTATION_SIGNING_EXPIRES: &str = "relayfleet.io/signing-key-expires";
/// Label key of what the operator keeps in its own namespace: that of the object that it is kept for.
pub const LABEL_NAMESPACE: &str = "relayfleet.io/namespace";
/// Type of the signing Secret.
pub const SECRET_TYPE_SIGNING: &str = "relayfleet.io/signing-key";

/// Label key: name of the RelayFamily that the object belongs to.
pub const LABEL_FAMILY: &str = "relayfleet.io/family";
/// Annotation of what holds a family's keys: their public halves, newest first, between commas.
pub const ANNOTATION_FAMILY_IDS: &str = "relayfleet.io/family-ids";
/// Finalizer of a family key's Secret. The operator never takes it away.
pub const FINALIZER_FAMILY_KEY: &str = "relayfleet.io/family-key";
/// Type of a Secret with keys of a family.
pub const SECRET_TYPE_FAMILY: &str = "relayfleet.io/family-key";

/// Relay names longer than this leave no room for the suffixes below in a Kubernetes label (63 characters).
pub const RELAY_NAME_LENGTH_MAX: usize = 52;

/// The Secret in the operator's namespace with the key that status tokens are made of.
pub const STATUS_KEY_SECRET: &str = "relayfleet-status-key";

/// Type of the Secret with a relay's status token.
pub const SECRET_TYPE_STATUS: &str = "relayfleet.io/status-token";
/// Annotation of that Secret: SHA-256 of the token.
pub const ANNOTATION_TOKEN_HASH: &str = "relayfleet.io/token-hash";

/// Longer names of RelaySets leave no room for `-999`.
pub const SET_NAME_LENGTH_MAX: usize = RELAY_NAME_LENGTH_MAX - 4;
/// Longer nicknames of a template leave no room for `999` (dir-spec: 19 characters in all).
pub const NICKNAME_STEM_MAX: usize = 16;

/// The Relay of a RelaySet with this number.
#[must_use]
pub fn set_member(set: &str, ordinal: i32) -> String {
    format!("{set}-{ordinal}")
}

/// The Secret with the relay's identity keys.
#[must_use]
pub fn identity_secret(relay: &str) -> String {
    format!("{relay}-identity")
}

/// The Secret in the operator's namespace with the whole identity of a relay whose master key the operator keeps.
/// Neither name has a dot in it, so no two relays share one.
#[must_use]
pub fn custody_secret(namespace: &str, relay: &str) -> String {
    format!("{namespace}.{relay}.identity")
}

/// The Secret with the signing key that a pod gets whose master key the operator keeps.
#[must_use]
pub fn signing_secret(relay: &str) -> String {
    format!("{relay}-signing")
}

/// The Secret with what the operator must show at the relay's status port.
#[must_use]
pub fn status_secret(relay: &str) -> String {
    format!("{relay}-status")
}

/// The Secret in the operator's namespace with one key of a family.
#[must_use]
pub fn family_key_secret(namespace: &str, family: &str, generation: i32) -> String {
    format!("{namespace}.{family}.family-{generation}")
}

/// The Secret beside a family with its keys, for members that run C tor.
#[must_use]
pub fn family_shared_secret(family: &str) -> String {
    format!("{family}-family-keys")
}

/// A ConfigMap with the members' certificates.
#[must_use]
pub fn family_shard(family: &str, shard: usize) -> String {
    format!("{family}-family-{shard}")
}

/// The ConfigMap with the files that prove who runs a family's relays.
#[must_use]
pub fn family_well_known(family: &str) -> String {
    format!("{family}-well-known")
}

/// The ConfigMap with the relay's torrc.
#[must_use]
pub fn torrc_config_map(relay: &str) -> String {
    format!("{relay}-torrc")
}

/// The volume claim for the relay's DataDirectory.
#[must_use]
pub fn data_claim(relay: &str) -> String {
    format!("{relay}-data")
}
