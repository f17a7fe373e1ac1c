//! A circuit's layer of relay crypto at this relay, whichever was agreed.

use rand::RngExt;
use relay_wire::cell::{BODY_BYTES, Command};
use relay_wire::reader::CutShort;
use relay_wire::relay_cells::{Format, RelayMessage};

use super::keys::RelayKeys;
use super::{cgo, tor1};
use crate::flow::Tag;

type Body = [u8; BODY_BYTES];

/// Both directions. Boxed, so that a circuit that still waits for its keys costs little.
pub(crate) enum Layer {
    Tor1(Box<Tor1>),
    /// The same while nothing goes over the circuit, as with most of a relay's circuits at most times.
    Resting(Box<(tor1::Resting, tor1::Resting)>),
    Cgo(Box<(cgo::RelayForward, cgo::RelayBackward)>),
}

/// The old crypto at work.
pub(crate) struct Tor1 {
    forward: tor1::Direction,
    backward: tor1::Direction,
    /// Where both stood when somebody looked last.
    stood_at: Option<(u64, u64)>,
}

impl Layer {
    /// At rest until the first cell.
    pub(crate) fn new(keys: &RelayKeys) -> Self {
        match keys {
            RelayKeys::Tor1(keys) => Self::Resting(Box::new(tor1::Resting::pair(keys))),
            RelayKeys::Cgo(keys) => {
                let (mut forward, mut backward) = ([0; cgo::KEY_BYTES], [0; cgo::KEY_BYTES]);
                let (first, second) = keys.split_at(cgo::KEY_BYTES);
                forward.copy_from_slice(first);
                backward.copy_from_slice(second);
                let pair = (cgo::RelayForward::new(&forward), cgo::RelayBackward::new(&backward));
                zeroize::Zeroize::zeroize(&mut forward);
                zeroize::Zeroize::zeroize(&mut backward);
                Self::Cgo(Box::new(pair))
            }
        }
    }

    #[inline]
    fn wake(&mut self) {
        if let Self::Resting(pair) = self {
            *self = Self::woken(pair);
        }
    }

    #[cold]
    fn woken(pair: &(tor1::Resting, tor1::Resting)) -> Self {
        Self::Tor1(Box::new(Tor1 {
            forward: pair.0.wake(),
            backward: pair.1.wake(),
            stood_at: None,
        }))
    }

    /// Puts it to rest, if nothing has gone either way since this was asked last; CGO each way by itself.
    pub(crate) fn rest_if_idle(&mut self) {
        if let Self::Cgo(pair) = self {
            pair.0.rest_if_idle();
            pair.1.rest_if_idle();
        }
        let Self::Tor1(pair) = self else { return };
        let stands_at = pair.forward.position().zip(pair.backward.position());
        let idle = stands_at.is_some() && pair.stood_at == stands_at;
        pair.stood_at = stands_at;
        if idle && let Some(pair) = pair.forward.rest().zip(pair.backward.rest()) {
            *self = Self::Resting(Box::new(pair));
        }
    }

    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Tor1(_) | Self::Resting(_) => Format::V0,
            Self::Cgo(_) => Format::V1,
        }
    }

    /// Takes our layer off a cell from the client, on its way to where it waits or is read; a tag means that it is for us.
    #[inline]
    pub(crate) fn receive(&mut self, command: Command, from: &Body, to: &mut Body) -> Option<Tag> {
        self.wake();
        match self {
            Self::Tor1(pair) => {
                pair.forward.crypt_into(from, to);
                pair.forward.recognise(to).map(Tag::from)
            }
            Self::Cgo(pair) => pair.0.receive(command.0, from, to).map(Tag::from),
            // It is awake.
            Self::Resting(_) => None,
        }
    }

    /// Puts our layer on a cell for the client, on its way to where it waits.
    #[inline]
    pub(crate) fn pass(&mut self, command: Command, from: &Body, to: &mut Body) {
        self.wake();
        match self {
            Self::Tor1(pair) => pair.backward.crypt_into(from, to),
            Self::Cgo(pair) => pair.1.pass(command.0, from, to),
            // It is awake.
            Self::Resting(_) => {}
        }
    }

    /// Makes `to` a cell for the client out of a message of our own. Behind the data stand up to four zeros and then
    /// noise, so that nobody can guess a whole cell (tor-spec, "Relay cells"). The tag is
    /// what a SENDME for it must carry.
    #[inline]
    pub(crate) fn originate(
        &mut self,
        message: &RelayMessage<'_>,
        dice: &mut impl RngExt,
        to: &mut Body,
    ) -> Result<Tag, CutShort> {
        let mut plain = [0; BODY_BYTES];
        let fill = message.write_into(self.format(), &mut plain)?;
        if let Some(noise) = plain.get_mut(fill + 4..).filter(|noise| !noise.is_empty()) {
            dice.fill(noise);
        }
        self.wake();
        Ok(match self {
            Self::Tor1(pair) => {
                let tag = pair.backward.sign(&mut plain);
                pair.backward.crypt_into(&plain, to);
                Tag::from(tag)
            }
            // It is awake.
            Self::Resting(_) => return Err(CutShort),
            Self::Cgo(pair) => Tag::from(pair.1.originate(Command::RELAY.0, &mut plain, to)),
        })
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::crypto::keys::TOR1_KEY_BYTES;

    #[test]
    fn a_layer_rests_when_nothing_has_gone_between_two_looks_and_wakes_with_the_next_cell() {
        let keys = RelayKeys::Tor1(Zeroizing::new([3; TOR1_KEY_BYTES]));
        let (mut looked_at, mut left_alone) = (Layer::new(&keys), Layer::new(&keys));
        for round in 0..20_u8 {
            assert!(matches!(looked_at, Layer::Resting(_)), "round {round}");
            let (came, mut one, mut other) = ([round; BODY_BYTES], [1; BODY_BYTES], [2; BODY_BYTES]);
            looked_at.pass(Command::RELAY, &came, &mut one);
            left_alone.pass(Command::RELAY, &came, &mut other);
            assert_eq!(one, other);
            looked_at.rest_if_idle();
            assert!(matches!(looked_at, Layer::Tor1(_)), "it has just worked");
            let tags = [
                looked_at.receive(Command::RELAY, &came, &mut one),
                left_alone.receive(Command::RELAY, &came, &mut other),
            ];
            assert!(tags.iter().all(Option::is_none));
            assert_eq!(one, other);
            looked_at.rest_if_idle();
            looked_at.rest_if_idle();
        }
    }
}
