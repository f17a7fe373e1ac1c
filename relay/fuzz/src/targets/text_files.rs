//! Files that people and C tor write: torrc, state, family bundles.

use relay_formats::family_bundle::{FamilyBundle, family_of};
use relay_formats::state::{HistoryOf, StateFile};
use relay_formats::torrc::Torrc;

use crate::relay::now;

/// The text; where its first line begins with `#cmd `, that line's words are options of the command line.
pub(super) fn torrc(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (line, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let (options, text) = match line.strip_prefix("#cmd ") {
        Some(words) => (words, rest),
        None => ("", &*text),
    };
    let words: Vec<&str> = options.split('\t').collect();
    let options: Vec<_> = words
        .chunks_exact(2)
        .map(|pair| (pair[0].to_owned(), pair[1].to_owned()))
        .collect();
    let read = Torrc::parse_with(text, &options);
    assert_eq!(read, Torrc::parse_with(text, &options));
    match &read {
        Ok(torrc) => {
            assert!(!torrc.or_ports.is_empty());
            assert!((1..=19).contains(&torrc.nickname.as_str().len()));
            if options.is_empty() && !text.ends_with('\\') && !text.contains('"') {
                let more = format!("{text}\n# and a word at the end\n");
                assert_eq!(read, Torrc::parse(&more), "a comment changes what is read");
            }
        }
        Err(errors) => {
            assert!(!errors.0.is_empty(), "refused without a reason");
            // C tor's lines are ended by \n alone.
            let lines = text.split('\n').count();
            for error in &errors.0 {
                assert!(!error.message.is_empty());
                assert!(!error.message.contains('\n'), "{error:?} takes two lines");
                if let Some(place) = error.place {
                    assert!(place.line <= lines && place.column >= 1, "{error:?} of {lines} lines");
                }
            }
            assert!(
                errors.0.len() <= 2 * lines + 4 * options.len() + 64,
                "{} errors",
                errors.0.len()
            );
        }
    }
}

/// The text of a state file.
pub(super) fn state_file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(state) = StateFile::parse(&text) else { return };
    let plain = state.to_string();
    assert_eq!(
        StateFile::parse(&plain).as_ref(),
        Ok(&state),
        "entries are lost or changed"
    );

    let written = state.to_text(now(), "Tor 0.4.9.11");
    assert!(written.len() <= 2 * text.len() + 512);
    let again = StateFile::parse(&written).expect("we wrote it");
    assert_eq!(again.last_written(), Ok(Some(now())));
    assert_eq!(again.tor_version(), Some("Tor 0.4.9.11"));
    assert_eq!(again.accounting(), state.accounting());
    assert_eq!(again.last_rotated_onion_key(), state.last_rotated_onion_key());

    let mut changed = again.clone();
    if let Ok(Some(mut record)) = state.accounting() {
        changed.set_accounting(&record);
        let kib = |bytes: u64| bytes.max(1).div_ceil(1024).saturating_mul(1024);
        record.bytes_read = kib(record.bytes_read);
        record.bytes_written = kib(record.bytes_written);
        assert_eq!(changed.accounting(), Ok(Some(record)));
    }
    for of in [
        HistoryOf::Read,
        HistoryOf::Write,
        HistoryOf::Ipv6Read,
        HistoryOf::DirWrite,
    ] {
        if let Ok(Some(history)) = state.bandwidth_history(of) {
            changed.set_bandwidth_history(of, &history);
            assert_eq!(changed.bandwidth_history(of), Ok(Some(history)));
        }
    }
    assert_eq!(StateFile::parse(&changed.to_string()), Ok(changed));
}

/// The text of a family bundle.
pub(super) fn family(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(bundle) = FamilyBundle::parse(&text) else { return };
    assert_eq!(FamilyBundle::parse(&bundle.to_text()).as_ref(), Ok(&bundle));
    for (owner, cert) in &bundle.certs {
        let valid = bundle.valid_certs_of(owner, now());
        assert!(valid.len() <= bundle.certs.len());
        assert_eq!(valid.contains(cert), family_of(cert, owner, now()).is_some());
    }
}
