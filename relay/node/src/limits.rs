//! Limits of the system.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept back from links: listeners, logs, files, directory connections.
const RESERVED: u64 = 64;

/// Further ones for questions to the DNS, where there are many.
const FOR_DNS: u64 = 512;

/// Raises the soft limit on descriptors to the hard one and returns how many links there is room for.
pub fn room_for_links() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if let Some(most) = limit.maximum
        && limit.current.is_some_and(|now| now < most)
        && let Err(error) = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(most),
                maximum: Some(most),
            },
        )
    {
        tracing::warn!("Couldn't set maximum number of file descriptors: {error}");
    }
    let all = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = all.saturating_sub(RESERVED + FOR_DNS.min(all / 8));
    usize::try_from(room).unwrap_or(usize::MAX)
}
