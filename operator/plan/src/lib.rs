//! Facts in, plan out. Pure: no client, no clock, no async.
