//! torrc `User`: once the ports are open, give up the rights of root.

use std::path::Path;

use nix::unistd::{Gid, Uid, getegid, geteuid, setgid, setgroups, setuid};

/// Where users are told. Read by ourselves: a static program cannot ask the system's name service.
const PASSWD: &str = "/etc/passwd";

/// Why we cannot become that user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Nobody has that name.
    #[error("Couldn't find user '{0}' in {PASSWD}. You may use a name that stands there.")]
    Unknown(String),
    /// Only root can become another.
    #[error("Cannot become user '{0}': this process is not root's. Start it as that user, or leave User out of torrc.")]
    NotRoot(String),
    /// The system refuses.
    #[error("Error setting user to '{0}': {1}")]
    Refused(String, nix::errno::Errno),
}

/// Becomes `name`, for good; nothing happens where we are that user already.
///
/// # Errors
/// See [`UserError`].
pub fn become_user(name: &str) -> Result<(), UserError> {
    let passwd = std::fs::read_to_string(Path::new(PASSWD)).unwrap_or_default();
    let (uid, gid) = look_up(&passwd, name).ok_or_else(|| UserError::Unknown(name.to_owned()))?;
    if geteuid() == uid && getegid() == gid {
        return Ok(());
    }
    if !geteuid().is_root() {
        return Err(UserError::NotRoot(name.to_owned()));
    }
    // In this order: after setuid we may do neither of the others.
    let become_them = || {
        setgroups(&[gid])?;
        setgid(gid)?;
        setuid(uid)
    };
    become_them().map_err(|error| UserError::Refused(name.to_owned(), error))
}

/// User and group of `name` in the text of a passwd file.
fn look_up(passwd: &str, name: &str) -> Option<(Uid, Gid)> {
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let line = lines.find(|fields| fields.first() == Some(&name))?;
    let number = |at: usize| line.get(at)?.parse::<u32>().ok();
    Some((Uid::from_raw(number(2)?), Gid::from_raw(number(3)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\ndebian-tor:x:104:110::/var/lib/tor:/bin/false\nodd:x:a:b::/:\n";
        assert_eq!(
            look_up(passwd, "debian-tor"),
            Some((Uid::from_raw(104), Gid::from_raw(110)))
        );
        assert_eq!(look_up(passwd, "debian"), None);
        assert_eq!(look_up(passwd, "odd"), None);
    }

    #[test]
    fn whom_nobody_knows_we_cannot_become() {
        assert!(matches!(become_user("no such user"), Err(UserError::Unknown(_))));
    }
}
