//! Row 11: VERSIONS, and what comes before it.

use anyhow::Result;

use super::links::fate;
use crate::catalog::{Answer, Probe, differs, same};
use crate::cells::{command, fixed, netinfo, variable_narrow, versions};
use crate::link::Link;
use crate::scene::Scene;

pub(super) const PROBES: &[Probe] = &[
    same(
        11,
        "versions-none-in-common",
        |scene| said(scene, &versions(&[1, 2, 99])),
        "closed",
    ),
    same(
        11,
        "versions-odd-length",
        |scene| said(scene, &variable_narrow(0, command::VERSIONS, &[0, 4, 0])),
        "closed",
    ),
    same(11, "versions-empty", |scene| said(scene, &versions(&[])), "closed"),
    differs(
        11,
        "versions-on-a-circuit",
        |scene| said(scene, &variable_narrow(7, command::VERSIONS, &[0, 4, 0, 5])),
        "cell 7",
        "closed",
        "VERSIONS belongs to no circuit",
    ),
    same(
        11,
        "netinfo-before-versions",
        |scene| said(scene, &netinfo_narrow()),
        "closed or silent",
    ),
    same(
        11,
        "certs-before-versions",
        |scene| said(scene, &variable_narrow(0, command::CERTS, &[0])),
        "closed or silent",
    ),
    differs(
        11,
        "versions-again-before-netinfo",
        again_before_netinfo,
        "silent",
        "closed",
        "a peer that repeats a step of the handshake is left at once and not at the deadline",
    ),
    same(11, "versions-again-on-an-open-link", again_when_open, "ignored"),
    differs(
        11,
        "netinfo-again",
        |scene| when_open(scene, &netinfo()),
        "ignored",
        "closed",
        "a handshake cell on an open link closes it, NETINFO as well as CERTS",
    ),
    same(34, "netinfo-with-a-clock-of-another-age", another_age, "ignored"),
];

/// A time 68 years after 1970, and one before that of any Tor.
fn another_age(scene: &Scene) -> Result<Answer> {
    for time in [[0x7f, 0xff, 0xff, 0xff], [0xff; 4], [0, 0, 0, 1]] {
        let mut link = Link::versions(scene, scene.fresh_source())?;
        link.send(&fixed(
            0,
            command::NETINFO,
            &[&time[..], &[4, 4, 192, 0, 2, 1, 0]].concat(),
        ));
        if !link.is_alive(scene.patience) {
            return Ok("closed".into());
        }
    }
    Ok("ignored".into())
}

fn netinfo_narrow() -> Vec<u8> {
    netinfo().split_off(2)
}

fn said(scene: &Scene, first: &[u8]) -> Result<Answer> {
    let mut link = Link::tls(scene, scene.fresh_source())?;
    link.send(first);
    Ok(fate(&mut link).into())
}

fn again_before_netinfo(scene: &Scene) -> Result<Answer> {
    let mut link = Link::versions(scene, scene.fresh_source())?;
    link.send(&[&[0, 0][..], &versions(&[4, 5])].concat());
    Ok(fate(&mut link).into())
}

fn again_when_open(scene: &Scene) -> Result<Answer> {
    when_open(scene, &[&[0, 0][..], &versions(&[4, 5])].concat())
}

fn when_open(scene: &Scene, bytes: &[u8]) -> Result<Answer> {
    let mut link = Link::open(scene, scene.fresh_source())?;
    // An open link first: what follows must not be taken for its handshake.
    link.send(&fixed(0, command::PADDING, &[]));
    link.send(bytes);
    Ok(if link.is_alive(scene.patience) {
        "ignored"
    } else {
        "closed"
    }
    .into())
}
