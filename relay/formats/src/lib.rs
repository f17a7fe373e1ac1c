//! What lies on disk or in a document; relay and operator share it.

pub mod fingerprint;
