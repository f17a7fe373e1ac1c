use proptest::prelude::*;

use super::*;
use crate::flow::FlowVerdict;
use crate::network::Parameters;

const START: Duration = Duration::from_secs(100);
const XOFF_BYTES: u64 = 500 * 488;
const SAMPLE_BYTES: u64 = 500 * 498 + 1;

fn stream() -> StreamFlow {
    StreamFlow::new(FlowParameters::read(&Parameters::default()))
}

fn at(millis: u64) -> Duration {
    START + Duration::from_millis(millis)
}

fn xon(kilobytes_per_second: u32) -> Xon {
    Xon { kilobytes_per_second }
}

#[test]
fn a_burst_that_drains_within_five_milliseconds_costs_no_xoff() {
    let mut stream = stream();
    assert_eq!(stream.on_data_received(at(0), XOFF_BYTES + 1), Ok(None));
    assert_eq!(stream.on_data_received(at(5), XOFF_BYTES + 2), Ok(None));
    assert_eq!(stream.on_drained(at(6), XOFF_BYTES, 2), None);
    assert_eq!(stream.on_data_received(at(7), XOFF_BYTES + 1), Ok(None));
    assert_eq!(stream.on_data_received(at(12), XOFF_BYTES + 1), Ok(None));
}

#[test]
fn a_backlog_that_lasts_is_answered_with_one_xoff_and_an_empty_one_with_xon() {
    let mut stream = stream();
    assert_eq!(stream.on_data_received(at(0), XOFF_BYTES + 1), Ok(None));
    assert_eq!(stream.on_data_received(at(6), XOFF_BYTES + 500), Ok(Some(Signal::Xoff)));
    assert_eq!(stream.on_data_received(at(50), XOFF_BYTES + 1_000), Ok(None));
    assert_eq!(stream.on_drained(at(60), XOFF_BYTES, 1_000), None);
    assert_eq!(stream.on_drained(at(70), 1_000, 0), Some(Signal::Xon(xon(0))));
    assert_eq!(stream.on_drained(at(80), 0, 0), None);
}

#[test]
fn a_backlog_of_just_the_limit_is_no_reason_to_stop() {
    let mut stream = stream();
    for step in 0..100 {
        assert_eq!(stream.on_data_received(at(step), XOFF_BYTES), Ok(None));
    }
}

/// Stops the stream, then drains it at this rate, a sample at a time; the XON that follows tells it.
fn stopped_and_drained(stream: &mut StreamFlow, bytes_per_milli: u64) -> Option<Signal> {
    stream.on_data_received(at(0), XOFF_BYTES + 1).unwrap();
    assert_eq!(stream.on_data_received(at(6), XOFF_BYTES + 1), Ok(Some(Signal::Xoff)));
    // The first drain sets the clock, the second is the sample.
    stream.on_drained(at(6), 1, SAMPLE_BYTES);
    stream.on_drained(at(6 + SAMPLE_BYTES / bytes_per_milli), SAMPLE_BYTES, 0)
}

#[test]
fn an_xon_tells_how_fast_the_destination_drinks() {
    // 1,000 bytes a millisecond are 1,000 times 1,000 bytes a second; the 6 ms before XOFF, without a byte, count too.
    let Some(Signal::Xon(told)) = stopped_and_drained(&mut stream(), 1_000) else {
        panic!("an empty backlog asks for XON")
    };
    assert!((970..=980).contains(&told.kilobytes_per_second), "{told:?}");
}

#[test]
fn a_rate_that_moves_by_more_than_a_quarter_is_told_again() {
    let mut stream = stream();
    stopped_and_drained(&mut stream, 1_000);
    let mut now = 1_000;
    let mut sample = |stream: &mut StreamFlow, bytes_per_milli: u64| {
        assert_eq!(stream.on_drained(at(now), 1, 100), None);
        now += SAMPLE_BYTES / bytes_per_milli;
        stream.on_drained(at(now), SAMPLE_BYTES, 100)
    };
    assert_eq!(sample(&mut stream, 1_100), None);
    assert_eq!(sample(&mut stream, 1_100), None);
    let Some(Signal::Xon(faster)) = sample(&mut stream, 3_000) else {
        panic!("three times the rate is news")
    };
    assert!(faster.kilobytes_per_second > 2_000, "{faster:?}");
    let Some(Signal::Xon(slower)) = sample(&mut stream, 100) else {
        panic!("a thirtieth is news too")
    };
    assert!(slower.kilobytes_per_second < 1_200, "{slower:?}");
}

#[test]
fn a_destination_that_stays_thirsty_is_offered_twice_as_much() {
    let mut stream = stream();
    stopped_and_drained(&mut stream, 1_000);
    assert_eq!(stream.on_drained(at(1_000), SAMPLE_BYTES, 0), None);
    let Some(Signal::Xon(doubled)) = stream.on_drained(at(1_001), 1, 0) else {
        panic!("the double is more than a quarter")
    };
    assert!((1_940..=1_960).contains(&doubled.kilobytes_per_second), "{doubled:?}");
}

#[test]
fn a_stream_that_was_never_stopped_says_nothing() {
    let mut stream = stream();
    for step in 0..1_000 {
        assert_eq!(stream.on_data_received(at(10 * step), 40 * 488), Ok(None));
        assert_eq!(stream.on_drained(at(10 * step + 5), 40 * 488, 0), None);
    }
}

#[test]
fn a_client_that_ignores_xoff_loses_its_circuit() {
    let mut stream = stream();
    let most = XOFF_BYTES + 2 * 5_000 * 498;
    assert!(stream.on_data_received(at(0), most).is_ok());
    let error = stream.on_data_received(at(6), most + 1).unwrap_err();
    assert_eq!(error, FlowError::XoffIgnored);
    assert!(matches!(error.verdict(), FlowVerdict::CloseCircuit(_)));
}

#[test]
fn xoff_stops_reading_until_xon() {
    let mut stream = stream();
    assert_eq!(stream.read_allowance_bytes(at(0)), u64::MAX);
    stream.on_xoff().unwrap();
    assert_eq!((stream.read_allowance_bytes(at(1)), stream.readable_at()), (0, None));
    stream.on_xon(at(2), xon(0));
    assert_eq!(stream.read_allowance_bytes(at(2)), u64::MAX);
}

#[test]
fn a_second_xoff_is_dropped_and_harms_nobody() {
    let mut stream = stream();
    stream.on_xoff().unwrap();
    assert_eq!(
        stream.on_xoff().map_err(|error| error.verdict()),
        Err(FlowVerdict::Ignore)
    );
    stream.on_xon(at(0), xon(0));
    assert_eq!(stream.on_xoff(), Ok(()));
}

#[test]
fn the_rate_of_an_xon_is_kept_in_units_of_1000_bytes_a_second() {
    let mut stream = stream();
    stream.on_xon(at(0), xon(50));
    assert_eq!(stream.read_allowance_bytes(at(0)), 50_000);
    stream.on_read(50_000);
    assert_eq!(stream.read_allowance_bytes(at(100)), 5_000);
    stream.on_read(5_000);
    let ready = stream.readable_at().unwrap();
    assert!(ready > at(109) && ready <= at(110));
    assert_eq!(stream.read_allowance_bytes(ready), 488);
}

#[test]
fn a_rate_of_nothing_or_beyond_all_measure_is_no_limit() {
    for limitless in [0, 2_147_484, u32::MAX] {
        let mut stream = stream();
        stream.on_xon(at(0), xon(1));
        stream.on_xon(at(0), xon(limitless));
        assert_eq!(
            (stream.read_allowance_bytes(at(0)), stream.readable_at()),
            (u64::MAX, None)
        );
    }
    let mut stream = stream();
    stream.on_xon(at(0), xon(2_147_483));
    assert_eq!(stream.read_allowance_bytes(at(0)), 2_147_483_000);
}

proptest! {
    #[test]
    fn xoff_and_xon_take_turns_whatever_happens(
        events in prop::collection::vec((0..3_u8, 0..20_000_u64, any::<u32>(), any::<u32>()), 0..300),
    ) {
        let (mut stream, mut now, mut stopped) = (stream(), START, false);
        for (kind, micros, amount, rate) in events {
            now += Duration::from_micros(micros);
            let amount = u64::from(amount) >> (amount % 32);
            let signal = match kind {
                0 => stream.on_data_received(now, amount).unwrap_or(None),
                1 => stream.on_drained(now, u64::from(rate), amount),
                _ => {
                    stream.on_xon(now, xon(rate));
                    stream.on_read(amount);
                    let _ = (stream.read_allowance_bytes(now), stream.readable_at());
                    None
                }
            };
            match signal {
                Some(Signal::Xoff) => {
                    prop_assert!(!stopped);
                    stopped = true;
                }
                Some(Signal::Xon(_)) => stopped = false,
                None => {}
            }
            prop_assert_eq!(stream.outgoing.xoff_sent, stopped);
        }
    }
}
