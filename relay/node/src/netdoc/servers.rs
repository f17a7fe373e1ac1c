//! Server descriptors and extra-infos, told apart and named. Whether one is good is the consensus's word: it names the good
//! ones by digest, so a cache need not read further (and could not read those of tomorrow).

use std::sync::Arc;

use sha1::{Digest as _, Sha1};

/// Longer ones no authority takes (C tor, `MAX_DESCRIPTOR_UPLOAD_SIZE` and `MAX_EXTRAINFO_UPLOAD_SIZE`).
const SERVER_BYTES_MAX: usize = 20_000;
const EXTRA_INFO_BYTES_MAX: usize = 50_000;

const SIGNATURE: &str = "\nrouter-signature\n";
const SIGNATURE_BEGIN: &str = "-----BEGIN SIGNATURE-----\n";
const SIGNATURE_END: &str = "-----END SIGNATURE-----\n";
/// An RSA-1024 signature in base64, with its line ends.
const SIGNATURE_BYTES_MAX: usize = 256;

/// A document that somebody sent, believed by nobody yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawDescriptor {
    /// SHA-1 up to and with `router-signature` and its line end: how a consensus, or a server descriptor, names it.
    pub digest: [u8; 20],
    /// From its first word to the end of its signature.
    pub text: Arc<str>,
}

impl RawDescriptor {
    /// Of a server descriptor: which extra-info goes with it.
    pub fn extra_info(&self) -> Option<[u8; 20]> {
        let line = self
            .text
            .lines()
            .find_map(|line| line.strip_prefix("extra-info-digest "))?;
        let mut digest = [0; 20];
        hex::decode_to_slice(line.split(' ').next()?, &mut digest).ok()?;
        Some(digest)
    }
}

/// The server descriptors in `text`, with or without annotations between them; what is none is passed over.
pub fn server_descriptors(text: &str) -> Vec<RawDescriptor> {
    split(text, "router ", SERVER_BYTES_MAX)
}

/// The same for extra-infos.
pub fn extra_infos(text: &str) -> Vec<RawDescriptor> {
    split(text, "extra-info ", EXTRA_INFO_BYTES_MAX)
}

fn split(text: &str, first_word: &str, bytes_max: usize) -> Vec<RawDescriptor> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(document) = begin(rest, first_word) {
        let Some((one, after)) = cut(document) else { break };
        found.extend(one.filter(|one| one.text.len() <= bytes_max));
        rest = after;
    }
    found
}

/// From the first line that begins with `word`.
fn begin<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    if text.starts_with(word) {
        return Some(text);
    }
    let line = format!("\n{word}");
    text.get(text.find(&line)? + 1..)
}

/// The document that begins here, if its signature is there too, and what follows it. Nothing but a signature may stand at
/// its end: the digest does not cover that part, so it could be anything.
fn cut(document: &str) -> Option<(Option<RawDescriptor>, &str)> {
    let named = document.find(SIGNATURE)? + SIGNATURE.len();
    let (body, rest) = document.split_at_checked(named)?;
    let signature = rest.find(SIGNATURE_END).filter(|end| *end <= SIGNATURE_BYTES_MAX);
    let Some(end) = signature.filter(|_| rest.starts_with(SIGNATURE_BEGIN)) else {
        return Some((None, rest));
    };
    let (whole, after) = document.split_at_checked(named + end + SIGNATURE_END.len())?;
    let one = RawDescriptor {
        digest: Sha1::digest(body).into(),
        text: whole.into(),
    };
    Some((Some(one), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIPTOR: &str = include_str!("../../testdata/descriptor.txt");
    const EXTRA_INFO: &str = include_str!("../../testdata/extra-info.txt");

    #[test]
    fn a_server_descriptor_names_the_extra_info_that_c_tor_made_with_it() {
        let [descriptor] = &server_descriptors(DESCRIPTOR)[..] else {
            panic!("one")
        };
        assert_eq!(&*descriptor.text, DESCRIPTOR);
        let [extra_info] = &extra_infos(EXTRA_INFO)[..] else {
            panic!("one")
        };
        assert_eq!(descriptor.extra_info(), Some(extra_info.digest));
    }

    #[test]
    fn trove_2021_001_documents_in_a_row_come_apart_and_what_is_damaged_is_passed_over() {
        let damaged = DESCRIPTOR.replace(SIGNATURE_END, "-----END SIGNATURE-----x\n");
        let row = format!("@downloaded-at now\n{DESCRIPTOR}@source x\n{damaged}{DESCRIPTOR}garbage\nrouter x\n");
        let found = server_descriptors(&row);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|one| &*one.text == DESCRIPTOR));
        assert!(extra_infos(&row).is_empty());
        let giant = DESCRIPTOR.replace("\nuptime", &format!("\nx {}\nuptime", "y".repeat(SERVER_BYTES_MAX)));
        assert!(server_descriptors(&giant).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(router |\n|router-signature\n|-----BEGIN SIGNATURE-----\n|-----END SIGNATURE-----\n|.){0,40}") {
            for one in server_descriptors(&text) {
                proptest::prop_assert!(text.contains(&*one.text));
            }
        }
    }
}
