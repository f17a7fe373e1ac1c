//! What END tells a client of an error of the system, as C tor's `errno_to_stream_end_reason`.

use std::io::{self, ErrorKind};

use relay_wire::relay_cells::EndReason;
use rustix::io::Errno;

/// Out of descriptors, ports or memory: ours to mend, not the destination's fault.
const WANT: [Errno; 6] = [
    Errno::MFILE,
    Errno::NFILE,
    Errno::NOBUFS,
    Errno::NOMEM,
    Errno::ADDRINUSE,
    Errno::ADDRNOTAVAIL,
];

/// The reason for `error`, of a connection that fails or breaks.
pub fn reason_of(error: &io::Error) -> EndReason {
    if Errno::from_io_error(error).is_some_and(|number| WANT.contains(&number)) {
        return EndReason::ResourceLimit;
    }
    match error.kind() {
        ErrorKind::ConnectionRefused => EndReason::ConnectRefused,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => EndReason::ConnReset,
        ErrorKind::TimedOut => EndReason::Timeout,
        // A firewall of our own refuses with a permission error.
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::PermissionDenied => EndReason::NoRoute,
        ErrorKind::BrokenPipe => EndReason::Done,
        ErrorKind::NotConnected => EndReason::Internal,
        _ => EndReason::Misc,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_learns_whose_fault_it_is() {
        let told = |number: Errno| reason_of(&number.into());
        assert_eq!(told(Errno::CONNREFUSED), EndReason::ConnectRefused);
        assert_eq!(told(Errno::CONNRESET), EndReason::ConnReset);
        assert_eq!(told(Errno::TIMEDOUT), EndReason::Timeout);
        assert_eq!(told(Errno::HOSTUNREACH), EndReason::NoRoute);
        assert_eq!(told(Errno::NETUNREACH), EndReason::NoRoute);
        assert_eq!(told(Errno::IO), EndReason::Misc);
        for want in WANT {
            assert_eq!(told(want), EndReason::ResourceLimit, "{want:?}");
        }
    }
}
