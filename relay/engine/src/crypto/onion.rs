//! The server's half of circuit handshakes: pure functions of keys, bytes and dice (tor-spec, "CREATE and CREATED cells").
//! They cost a tenth of a millisecond, so the driver runs [`answer`] on a thread of its own.

use relay_wire::reader::Reader;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use shake::digest::XofReader;

use super::keys::CircuitKeys;
use super::x25519::Secret;
use super::{ntor, ntor_v3};
use crate::door::OnionRequest;
use crate::network::Parameters;
use crate::settings::{OnionKey, Settings};

/// Which handshake, by its number in CREATE2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Type 2.
    Ntor,
    /// Type 3.
    NtorV3,
}

impl Handshake {
    /// The handshake that CREATE2 numbers so; TAP (0) is no longer spoken.
    pub fn of_number(number: u16) -> Option<Self> {
        match number {
            2 => Some(Self::Ntor),
            3 => Some(Self::NtorV3),
            _ => None,
        }
    }
}

/// The reply to the client and what both now share.
pub struct OnionAnswer {
    /// The body of CREATED2 after its length.
    pub reply: Vec<u8>,
    /// What the circuit is made of.
    pub keys: CircuitKeys,
}

/// Does the handshake of `request`; `None` where it is to be refused.
pub fn answer(request: &OnionRequest) -> Option<OnionAnswer> {
    let seed = Zeroizing::new(request.seed);
    let ours = Secret::new(&seed);
    match request.handshake {
        Handshake::Ntor => answer_ntor(&request.client, &request.settings, &ours),
        Handshake::NtorV3 => answer_ntor_v3(&request.client, &request.settings, &request.network.parameters, &ours),
    }
}

fn answer_ntor(client: &[u8], settings: &Settings, ours: &Secret) -> Option<OnionAnswer> {
    let mut reader = Reader::new(client);
    let (identity, wanted, theirs) = (
        reader.array::<20>().ok()?,
        reader.array::<32>().ok()?,
        reader.array::<32>().ok()?,
    );
    if identity != settings.rsa_identity.0 {
        return None;
    }
    let key = onion_key(settings, &wanted);
    let secret = key.map_or(ours, |key| &key.secret);
    let public = ntor::Public {
        identity,
        onion_key: wanted.into(),
        client: theirs.into(),
    };
    let (reply, keys) = ntor::server(&public, secret, ours)?;
    key.map(|_| OnionAnswer { reply, keys })
}

fn answer_ntor_v3(client: &[u8], settings: &Settings, parameters: &Parameters, ours: &Secret) -> Option<OnionAnswer> {
    let opening = ntor_v3::Opening::read(client)?;
    if opening.identity != settings.ed25519_identity.0 {
        return None;
    }
    let secret = onion_key(settings, &opening.onion_key).map_or(ours, |key| &key.secret);
    // With a key that is not ours the MAC cannot be right, so an unknown name fails here, after the same work.
    let heard = ntor_v3::hear(opening, secret, ntor_v3::CIRCUIT_EXTEND)?;
    let wishes = Wishes::read(&heard.message)?;
    let terms = wishes.granted(parameters)?;
    let (reply, mut stream) = heard.reply(&terms.response(), ours, ntor_v3::CIRCUIT_EXTEND)?;
    let keys = CircuitKeys::take(terms.wide_block, terms.sendme_increment, |part| stream.read(part));
    Some(OnionAnswer { reply, keys })
}

/// The key that a client names. Where there is none the caller works on with another, so that time tells nothing.
fn onion_key<'a>(settings: &'a Settings, wanted: &[u8; 32]) -> Option<&'a OnionKey> {
    settings
        .onion_keys
        .iter()
        .find(|key| bool::from(key.public.as_bytes().ct_eq(wanted)))
}

/// Whether clients may ask for CGO: `Relay=5-6` in our `proto` line stands and falls with this.
pub const CGO_GRANTED: bool = true;

const CONGESTION_CONTROL_REQUEST: u8 = 1;
const CONGESTION_CONTROL_RESPONSE: u8 = 2;
const SUBPROTOCOL_REQUEST: u8 = 3;
/// `Relay=6` in the numbers of the subprotocol request (proposal 346): all that may be asked for.
const CGO: [u8; 2] = [2, 6];

/// What a client asked for in its message (tor-spec, "Circuit parameter extensions").
#[derive(Debug, PartialEq, Eq)]
struct Wishes {
    congestion_control: bool,
    wide_block: bool,
}

impl Wishes {
    /// Reads the message to its last byte. An empty one has no wishes; what we do not know is passed over; a
    /// subprotocol that we cannot grant refuses the whole handshake.
    fn read(message: &[u8]) -> Option<Self> {
        let mut wishes = Self {
            congestion_control: false,
            wide_block: false,
        };
        let mut reader = Reader::new(message);
        let count = if message.is_empty() { 0 } else { reader.u8().ok()? };
        for _ in 0..count {
            let kind = reader.u8().ok()?;
            let length = usize::from(reader.u8().ok()?);
            let body = reader.take(length).ok()?;
            match kind {
                CONGESTION_CONTROL_REQUEST => wishes.congestion_control = true,
                SUBPROTOCOL_REQUEST => wishes.wide_block = subprotocols(body)?,
                _ => {}
            }
        }
        reader.is_empty().then_some(wishes)
    }

    /// What of it is granted; `None` where the handshake must fail.
    fn granted(&self, parameters: &Parameters) -> Option<Terms> {
        // 2 is Vegas; param-spec "cc_alg" and "cc_sendme_inc".
        let vegas = parameters.clamped("cc_alg", 2, 0, 3) == 2;
        let increment = parameters.clamped("cc_sendme_inc", 31, 1, 254) as u8;
        let sendme_increment = (self.congestion_control && vegas).then_some(increment);
        // Format 1 has no room for stream SENDMEs, so CGO needs congestion control (tor#41271).
        if self.wide_block && sendme_increment.is_none() {
            return None;
        }
        Some(Terms {
            sendme_increment,
            wide_block: self.wide_block,
        })
    }
}

/// Whether CGO is asked for. Strictly sorted pairs, all of which we must be able to grant.
fn subprotocols(body: &[u8]) -> Option<bool> {
    let (pairs, odd) = body.as_chunks::<2>();
    let sorted = pairs.is_sorted_by(|a, b| a < b);
    let known = pairs.iter().all(|pair| CGO_GRANTED && *pair == CGO);
    (odd.is_empty() && sorted && known).then_some(!pairs.is_empty())
}

struct Terms {
    sendme_increment: Option<u8>,
    wide_block: bool,
}

impl Terms {
    fn response(&self) -> Vec<u8> {
        match self.sendme_increment {
            Some(increment) => vec![1, CONGESTION_CONTROL_RESPONSE, 1, increment],
            None => vec![0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wishes(congestion_control: bool, wide_block: bool) -> Option<Wishes> {
        Some(Wishes {
            congestion_control,
            wide_block,
        })
    }

    #[test]
    fn a_message_is_read_to_its_last_byte() {
        assert_eq!(Wishes::read(&[]), wishes(false, false));
        assert_eq!(Wishes::read(&[0]), wishes(false, false));
        assert_eq!(Wishes::read(&[1, 1, 0]), wishes(true, false));
        assert_eq!(Wishes::read(&[2, 1, 0, 3, 2, 2, 6]), wishes(true, true));
        assert_eq!(
            Wishes::read(&[2, 99, 1, 7, 1, 0]),
            wishes(true, false),
            "unknown wishes are passed over"
        );
        assert_eq!(Wishes::read(&[1, 1, 0, 0]), None, "a byte too many");
        assert_eq!(Wishes::read(&[2, 1, 0]), None, "a wish too few");
    }

    #[test]
    fn a_subprotocol_that_is_not_cgo_refuses_the_handshake() {
        assert_eq!(subprotocols(&[2, 6]), Some(true));
        for refused in [&[2, 5][..], &[2, 6, 2, 6], &[2, 6, 1, 1], &[2, 5, 2, 6], &[2]] {
            assert_eq!(subprotocols(refused), None, "{refused:?}");
        }
    }

    /// tor#41271
    #[test]
    fn trove_41271_cgo_without_congestion_control_is_refused() {
        let mut parameters = Parameters::default();
        assert!(wishes(false, true).unwrap().granted(&parameters).is_none());
        assert!(wishes(true, true).unwrap().granted(&parameters).is_some());
        parameters.0.insert("cc_alg".into(), 0);
        assert!(wishes(true, true).unwrap().granted(&parameters).is_none());
        assert_eq!(
            wishes(true, false).unwrap().granted(&parameters).unwrap().response(),
            vec![0]
        );
    }

    proptest! {
        #[test]
        fn no_message_makes_the_reader_panic(message in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Wishes::read(&message);
        }
    }
}
