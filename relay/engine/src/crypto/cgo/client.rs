//! The client's end of CGO: it decrypts where relays encrypt. No relay needs it; load generators and tests do.

use aes::Aes128Dec;
use aes::cipher::{BlockDecrypt, KeyInit};
use zeroize::Zeroizing;

use super::{Body, CELL_STREAM, KEY_BYTES, TAG_BYTES, Tag, Uiv, tag_of, xor_into};

/// One direction at one hop, as the client keeps it.
struct Layer {
    uiv: Uiv,
    et_block: Aes128Dec,
    nonce: Tag,
    chain: Tag,
}

impl Layer {
    fn new(keys: &[u8; KEY_BYTES]) -> Self {
        let (uiv, nonce, et_block) = parts(keys);
        Self {
            uiv,
            et_block,
            nonce,
            chain: [0; TAG_BYTES],
        }
    }

    fn decrypt(&mut self, command: u8, body: &mut Body) {
        let mut block = tag_of(body);
        let (_, right) = body.split_at_mut(TAG_BYTES);
        self.uiv.stream(&block, CELL_STREAM).apply_keystream(right);
        let mask = self.uiv.mask(&self.chain, command, body);
        xor_into(&mut block, &mask);
        self.et_block.decrypt_block((&mut block).into());
        xor_into(&mut block, &mask);
        body.split_at_mut(TAG_BYTES).0.copy_from_slice(&block);
    }

    /// Puts this layer on a cell that goes on behind its hop.
    fn wrap(&mut self, command: u8, body: &mut Body) {
        let plain = tag_of(body);
        self.decrypt(command, body);
        self.chain = plain;
    }

    fn update(&mut self) {
        let fresh = self.uiv.next_keys(&self.nonce);
        (self.uiv, self.nonce, self.et_block) = parts(&fresh);
    }
}

fn parts(keys: &[u8; KEY_BYTES]) -> (Uiv, Tag, Aes128Dec) {
    let mut uiv = Zeroizing::new([0; KEY_BYTES - TAG_BYTES]);
    uiv.copy_from_slice(keys.split_at(KEY_BYTES - TAG_BYTES).0);
    let mut nonce = [0; TAG_BYTES];
    nonce.copy_from_slice(keys.split_at(KEY_BYTES - TAG_BYTES).1);
    let keys = super::quarters(&uiv);
    let [et_block, ..] = &*keys;
    (Uiv::new(&keys), nonce, Aes128Dec::new(et_block.into()))
}

/// All hops of a circuit, the nearest first, for cells that the client sends.
#[derive(Default)]
pub struct ClientForward(Vec<Layer>);

impl ClientForward {
    /// Adds a hop behind those there are.
    pub fn extend(&mut self, keys: &[u8; KEY_BYTES]) {
        self.0.push(Layer::new(keys));
    }

    /// Makes a cell for hop `to` (0 is the nearest) out of the plain text behind the first 16 bytes. Returns the tag that
    /// the hop's SENDME for this cell must carry; `None` if there is no such hop.
    pub fn originate(&mut self, to: usize, command: u8, body: &mut Body) -> Option<Tag> {
        let target = self.0.get_mut(to)?;
        body.split_at_mut(TAG_BYTES).0.copy_from_slice(&target.nonce);
        let plain = target.nonce;
        target.decrypt(command, body);
        target.chain = plain;
        target.update();
        let travelled = tag_of(body);
        for layer in self.0.iter_mut().take(to).rev() {
            layer.wrap(command, body);
        }
        Some(travelled)
    }

    /// Puts all layers on a cell that is for a hop behind these, whose crypto may be another.
    pub fn pass(&mut self, command: u8, body: &mut Body) {
        for layer in self.0.iter_mut().rev() {
            layer.wrap(command, body);
        }
    }
}

/// All hops of a circuit, the nearest first, for cells that the client gets.
#[derive(Default)]
pub struct ClientBackward(Vec<Layer>);

impl ClientBackward {
    /// Adds a hop behind those there are.
    pub fn extend(&mut self, keys: &[u8; KEY_BYTES]) {
        self.0.push(Layer::new(keys));
    }

    /// Peels a cell: which hop made it, and the tag that our SENDME for it must carry. `None`: no hop of ours did.
    pub fn receive(&mut self, command: u8, body: &mut Body) -> Option<(usize, Tag)> {
        for (hop, layer) in self.0.iter_mut().enumerate() {
            let travelled = tag_of(body);
            layer.decrypt(command, body);
            layer.chain = travelled;
            if tag_of(body) == layer.nonce {
                layer.nonce = travelled;
                layer.update();
                return Some((hop, travelled));
            }
        }
        None
    }
}

#[cfg(test)]
impl ClientForward {
    /// Sets what the last hop's layer remembers of the cell before.
    pub(super) fn remember(&mut self, chain: Tag) {
        if let Some(layer) = self.0.last_mut() {
            layer.chain = chain;
        }
    }

    /// Keys, nonce and chain of each hop.
    pub(super) fn into_states(self) -> impl Iterator<Item = (Uiv, Tag, Tag)> {
        self.0.into_iter().map(|layer| (layer.uiv, layer.nonce, layer.chain))
    }
}
