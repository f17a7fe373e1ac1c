use proptest::prelude::*;

use super::super::parameters::Path;
use super::super::tags::PENDING_MAX;
use super::*;
use crate::flow::{FlowError, FlowVerdict};
use relay_wire::flow_control::BadSendme;
use relay_wire::relay_cells::DestroyReason;

const START: Duration = Duration::from_secs(100);

fn rules(pairs: &[(&str, i32)], fast: bool) -> SendmeRules {
    SendmeRules::read(&consensus(pairs), fast)
}

fn consensus(pairs: &[(&str, i32)]) -> Parameters {
    Parameters(pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect())
}

fn vegas(sendme_inc: u8) -> CircuitFlow {
    CircuitFlow::vegas(
        rules(&[], false),
        VegasParameters::read(&Parameters::default(), Path::Exit, sendme_inc),
    )
}

fn tag(number: u64) -> Tag {
    let mut bytes = [7; 20];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Tag::Tor1(bytes)
}

fn sendme(number: u64) -> Vec<u8> {
    SendmeBody::v1(tag(number).as_bytes()).unwrap().as_bytes().to_vec()
}

/// Sends all there is room for; the numbers of cells count on from `from`.
fn fill(flow: &mut CircuitFlow, from: u64) -> u64 {
    let room = flow.room_cells();
    for number in from..from + room {
        flow.on_data_sent(START, tag(number)).unwrap();
    }
    from + room
}

#[test]
fn without_cc_a_circuit_sends_1000_cells_and_each_sendme_frees_100() {
    let mut flow = CircuitFlow::fixed(rules(&[], false));
    assert_eq!(fill(&mut flow, 1), 1_001);
    assert_eq!(flow.on_data_sent(START, tag(0)), Err(FlowError::NoRoom));
    for hundreds in 1..=10 {
        flow.on_sendme(START, &sendme(hundreds * 100), Backlog::default())
            .unwrap();
        assert_eq!(flow.room_cells(), hundreds * 100);
    }
    assert_eq!(
        flow.on_sendme(START, &sendme(1_000), Backlog::default()),
        Err(FlowError::UnexpectedSendme)
    );
    assert!(flow.congestion_control().is_none());
}

#[test]
fn with_cc_each_31st_cell_is_answered_and_its_round_trip_measured() {
    let mut flow = vegas(31);
    assert_eq!(fill(&mut flow, 1), 125);
    flow.on_sendme(START + Duration::from_millis(80), &sendme(31), Backlog::default())
        .unwrap();
    let vegas = flow.congestion_control().unwrap();
    assert_eq!(
        (vegas.rtt(), vegas.cwnd_cells()),
        (Some(Duration::from_millis(80)), 155)
    );
    assert_eq!(flow.room_cells(), 62);
}

#[test]
fn a_sendme_for_a_cell_that_the_peer_cannot_have_seen_closes_the_circuit() {
    for wrong in [
        sendme(62),
        sendme(0),
        SendmeBody::v1(&[0; 16]).unwrap().as_bytes().to_vec(),
        vec![1, 0, 0],
    ] {
        let mut flow = vegas(31);
        fill(&mut flow, 1);
        let error = flow.on_sendme(START, &wrong, Backlog::default()).unwrap_err();
        assert_eq!(error, FlowError::WrongTag);
        assert_eq!(error.verdict(), FlowVerdict::CloseCircuit(DestroyReason::TorProtocol));
    }
}

#[test]
fn cgo_tags_are_compared_like_others() {
    let mut flow = vegas(1);
    flow.on_data_sent(START, Tag::Cgo([5; 16])).unwrap();
    flow.on_data_sent(START, Tag::Cgo([6; 16])).unwrap();
    let body = |byte| SendmeBody::v1(&[byte; 16]).unwrap();
    flow.on_sendme(START, body(5).as_bytes(), Backlog::default()).unwrap();
    assert_eq!(
        flow.on_sendme(START, body(5).as_bytes(), Backlog::default()),
        Err(FlowError::WrongTag)
    );
}

#[test]
fn a_sendme_before_any_data_is_unexpected() {
    for mut flow in [vegas(31), CircuitFlow::fixed(rules(&[], false))] {
        assert_eq!(
            flow.on_sendme(START, &sendme(1), Backlog::default()),
            Err(FlowError::UnexpectedSendme)
        );
    }
}

#[test]
fn a_sendme_that_proves_nothing_passes_only_where_it_may() {
    let table = [
        (rules(&[], false), Err(FlowError::UnprovenSendme)),
        (rules(&[], true), Ok(())),
        (rules(&[("sendme_accept_min_version", 0)], false), Ok(())),
    ];
    for (rules, expected) in table {
        for body in [&[][..], &[0], &[0, 1, 2]] {
            let mut flow = CircuitFlow::fixed(rules);
            fill(&mut flow, 1);
            assert_eq!(flow.on_sendme(START, body, Backlog::default()), expected);
        }
        // It still takes its turn: the next one must name the second cell.
        let mut flow = CircuitFlow::fixed(rules);
        fill(&mut flow, 1);
        if flow.on_sendme(START, &[], Backlog::default()).is_ok() {
            assert_eq!(flow.on_sendme(START, &sendme(200), Backlog::default()), Ok(()));
        }
    }
}

#[test]
fn a_sendme_that_cannot_be_read_closes_the_circuit() {
    let mut flow = CircuitFlow::fixed(rules(&[], true));
    fill(&mut flow, 1);
    let cut = flow.on_sendme(START, &[1, 0, 20, 1], Backlog::default()).unwrap_err();
    assert!(matches!(cut, FlowError::BadSendme(BadSendme::CutShort(_))));
    let later = flow.on_sendme(START, &[2], Backlog::default());
    assert_eq!(later, Err(FlowError::BadSendme(BadSendme::Version)));
}

#[test]
fn what_comes_is_acknowledged_with_the_tag_of_the_cell_that_made_it_due() {
    let mut flow = CircuitFlow::fixed(rules(&[], false));
    let answers = |flow: &mut CircuitFlow, cells| {
        let answer = |number| {
            flow.on_data_received(&tag(number))
                .unwrap()
                .map(|body| (number, body.as_bytes().to_vec()))
        };
        (1..=cells).filter_map(answer).collect::<Vec<_>>()
    };
    assert_eq!(answers(&mut flow, 250), [(100, sendme(100)), (200, sendme(200))]);
    assert_eq!(answers(&mut vegas(31), 70), [(31, sendme(31)), (62, sendme(62))]);
    let mut old = CircuitFlow::fixed(rules(&[("sendme_emit_min_version", 0)], false));
    assert_eq!(answers(&mut old, 100), [(100, Vec::new())]);
}

/// The driver reads by a leave that was given before the next SENDME was looked at, and that may shrink the window.
#[test]
fn what_was_granted_still_goes_when_the_window_has_shrunk_meanwhile() {
    let mut flow = vegas(31);
    let mut sent = fill(&mut flow, 1) - 1;
    let blocked = Backlog {
        blocked: true,
        cells: 5_000,
    };
    flow.on_sendme(START + Duration::from_secs(1), &sendme(31), blocked)
        .unwrap();
    for _ in 0..flow.room_cells() + 32 {
        sent += 1;
        flow.on_data_sent(START, tag(sent)).unwrap();
    }
    assert_eq!(flow.room_cells(), 0, "but nobody is given leave for more");
    for number in (2..=sent / 31).map(|sendmes| sendmes * 31) {
        flow.on_sendme(START + Duration::from_secs(2), &sendme(number), Backlog::default())
            .unwrap();
    }
    assert!(flow.room_cells() > 0);
}

#[test]
fn outstanding_sendmes_are_bounded_whatever_the_consensus_says() {
    let wide = consensus(&[("cc_cwnd_init", 10_000), ("cc_ss_max", i32::MAX)]);
    let mut flow = CircuitFlow::vegas(rules(&[], false), VegasParameters::read(&wide, Path::Exit, 1));
    let mut sent = 0_u64;
    while flow.room_cells() > 0 {
        flow.on_data_sent(START, tag(sent)).unwrap();
        sent += 1;
    }
    assert_eq!(sent, PENDING_MAX as u64);
    assert_eq!(flow.on_data_sent(START, tag(sent)), Err(FlowError::NoRoom));
    flow.on_sendme(START, &sendme(0), Backlog::default()).unwrap();
    assert!(flow.room_cells() > 0);
}

proptest! {
    #[test]
    fn an_honest_client_is_never_refused(
        increment in 1..=254_u8, cc: bool, events in prop::collection::vec((0..2_000_u16, 0..20_u8, any::<u32>()), 0..60),
    ) {
        let mut flow = if cc { vegas(increment) } else { CircuitFlow::fixed(rules(&[], false)) };
        let every = if cc { u64::from(increment) } else { 100 };
        let (mut sent, mut acknowledged, mut now) = (0_u64, 0, START);
        for (cells, sendmes, micros) in events {
            for _ in 0..cells {
                if flow.room_cells() > 0 {
                    sent += 1;
                    prop_assert_eq!(flow.on_data_sent(now, tag(sent)), Ok(()));
                }
            }
            now += Duration::from_micros(u64::from(micros));
            for _ in 0..sendmes {
                if sent - acknowledged >= every {
                    acknowledged += every;
                    prop_assert_eq!(flow.on_sendme(now, &sendme(acknowledged), Backlog::default()), Ok(()));
                }
            }
        }
        // Nothing is wedged: once all is acknowledged there is room again.
        while sent - acknowledged >= every {
            acknowledged += every;
            prop_assert_eq!(flow.on_sendme(now, &sendme(acknowledged), Backlog::default()), Ok(()));
        }
        prop_assert!(flow.room_cells() > 0);
    }

    #[test]
    fn no_body_makes_a_circuit_panic(body in prop::collection::vec(any::<u8>(), 0..=498), fast: bool) {
        let mut flow = CircuitFlow::fixed(rules(&[], fast));
        fill(&mut flow, 1);
        let _ = flow.on_sendme(START, &body, Backlog::default());
    }
}
