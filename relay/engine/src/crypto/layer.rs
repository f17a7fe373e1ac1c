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
    Tor1(Box<(tor1::Direction, tor1::Direction)>),
    Cgo(Box<(cgo::RelayForward, cgo::RelayBackward)>),
}

impl Layer {
    pub(crate) fn new(keys: &RelayKeys) -> Self {
        match keys {
            RelayKeys::Tor1(keys) => Self::Tor1(Box::new(tor1::Direction::pair(keys))),
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

    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Tor1(_) => Format::V0,
            Self::Cgo(_) => Format::V1,
        }
    }

    /// Takes our layer off a cell from the client; a tag means that the cell is for us.
    #[inline]
    pub(crate) fn receive(&mut self, command: Command, body: &mut Body) -> Option<Tag> {
        match self {
            Self::Tor1(pair) => {
                pair.0.crypt(body);
                pair.0.recognise(body).map(Tag::from)
            }
            Self::Cgo(pair) => pair.0.receive(command.0, body).map(Tag::from),
        }
    }

    /// Puts our layer on a cell for the client.
    #[inline]
    pub(crate) fn pass(&mut self, command: Command, body: &mut Body) {
        match self {
            Self::Tor1(pair) => pair.1.crypt(body),
            Self::Cgo(pair) => pair.1.pass(command.0, body),
        }
    }

    /// Makes `body` a cell for the client out of a message of our own. Behind the data stand up to four zeros and then
    /// noise, so that nobody can guess a whole cell (tor-spec, "Relay cells"). The tag is
    /// what a SENDME for it must carry.
    #[inline]
    pub(crate) fn originate(
        &mut self,
        message: &RelayMessage<'_>,
        dice: &mut impl RngExt,
        body: &mut Body,
    ) -> Result<Tag, CutShort> {
        let fill = message.write_into(self.format(), body)?;
        if let Some(noise) = body.get_mut(fill + 4..).filter(|noise| !noise.is_empty()) {
            dice.fill(noise);
        }
        Ok(match self {
            Self::Tor1(pair) => {
                let tag = pair.1.sign(body);
                pair.1.crypt(body);
                Tag::from(tag)
            }
            Self::Cgo(pair) => Tag::from(pair.1.originate(Command::RELAY.0, body)),
        })
    }
}
