//! What people write and read: the custom resources of `relayfleet.io/v1alpha1`.
