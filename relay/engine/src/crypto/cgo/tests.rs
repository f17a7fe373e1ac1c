//! CGO against the vectors that the proposal's reference implementation made, as the crate tor-proto publishes them.
//! They are read from that crate's source, which is a dependency by name only: nothing of it is compiled.

use super::client::{ClientBackward, ClientForward};
use super::*;
use crate::crypto::vectors::source;

enum Token {
    Flag(bool),
    Number(u8),
    Bytes(Vec<u8>),
}

impl Token {
    fn flag(&self) -> bool {
        matches!(self, Token::Flag(true))
    }
    fn bytes<const N: usize>(&self) -> [u8; N] {
        let Token::Bytes(bytes) = self else {
            panic!("a vector has other parts than expected")
        };
        bytes
            .as_slice()
            .try_into()
            .expect("a vector has other lengths than expected")
    }
}

fn testdata(file: &str) -> String {
    source("tor-proto", &format!("testdata/{file}"))
}

/// The parts of the table that begins at `name`, in the order in which they stand there.
fn table(text: &str, name: &str) -> Vec<Token> {
    let start = text.find(name).expect("the table exists");
    let body = &text[start..];
    let body = &body[body.find("&[\n").expect("a table has rows")..];
    let body = &body[..body.find("\n];").expect("a table ends")];
    let words = body.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let words = words.flat_map(|line| line.split([',', '(', ')', ' ', '&', '[']));
    words
        .filter_map(|word| match word.trim() {
            "True" => Some(Token::Flag(true)),
            "False" => Some(Token::Flag(false)),
            word if word.starts_with('"') => Some(Token::Bytes(hex::decode(word.trim_matches('"')).expect("hex"))),
            word => word.parse().ok().map(Token::Number),
        })
        .collect()
}

fn body(tag: &Token, rest: &Token) -> Body {
    let mut body = [0; BODY_BYTES];
    body[..TAG_BYTES].copy_from_slice(&tag.bytes::<TAG_BYTES>());
    body[TAG_BYTES..].copy_from_slice(&rest.bytes::<RIGHT_BYTES>());
    body
}

fn direction(keys: &Token, nonce: &Token, chain: &Token) -> Direction {
    let mut material = [0; KEY_BYTES];
    material[..UIV_KEY_BYTES].copy_from_slice(&keys.bytes::<UIV_KEY_BYTES>());
    material[UIV_KEY_BYTES..].copy_from_slice(&nonce.bytes::<TAG_BYTES>());
    let mut direction = Direction::new(&material);
    direction.chain = chain.bytes();
    direction
}

/// Two states are alike if they name the same nonce and chain and turn the same cell into the same noise.
fn assert_alike(mut one: Direction, mut other: Direction) {
    assert_eq!((one.nonce, one.chain), (other.nonce, other.chain));
    let (cell, mut a, mut b) = ([7; BODY_BYTES], [1; BODY_BYTES], [2; BODY_BYTES]);
    one.encrypt(3, &cell, &mut a);
    other.encrypt(3, &cell, &mut b);
    assert_eq!(a, b);
}

/// The block cipher below the wide block. What a vector decrypts is encrypted back.
pub(in crate::crypto) fn block_vectors() -> usize {
    let rows = table(&testdata("cgo_et.rs"), "ET_TEST_VECTORS");
    for row in rows.chunks(5) {
        let mut keys = [0; UIV_KEY_BYTES];
        keys[..32].copy_from_slice(&row[1].bytes::<32>());
        let tweak = row[2].bytes::<{ TAG_BYTES + 1 + RIGHT_BYTES }>();
        let (plain, noise) = match row[0].flag() {
            true => (&row[3], &row[4]),
            false => (&row[4], &row[3]),
        };
        let uiv = Uiv::new(&quarters(&keys));
        let mut cell = [0; BODY_BYTES];
        cell[TAG_BYTES..].copy_from_slice(&tweak[17..]);
        let mask = uiv.mask(&tweak[..16].try_into().unwrap(), tweak[16], &cell);
        let left = tweaked(&uiv.et_block, &plain.bytes(), &mask);
        assert_eq!(left, noise.bytes::<TAG_BYTES>());
    }
    rows.len() / 5
}

/// Both ways; what a vector decrypts is encrypted back.
pub(in crate::crypto) fn wide_block_vectors() -> usize {
    let rows = table(&testdata("cgo_uiv.rs"), "UIV_TEST_VECTORS");
    for row in rows.chunks(7) {
        let tweak = row[2].bytes::<17>();
        let mut keys = [0; KEY_BYTES];
        keys[..UIV_KEY_BYTES].copy_from_slice(&row[1].bytes::<UIV_KEY_BYTES>());
        let mut uiv = Direction::new(&keys);
        uiv.chain.copy_from_slice(&tweak[..16]);
        let (from, to) = (body(&row[3], &row[4]), body(&row[5], &row[6]));
        let (plain, noise) = if row[0].flag() { (from, to) } else { (to, from) };
        let mut cell = [7; BODY_BYTES];
        uiv.encrypt(tweak[16], &plain, &mut cell);
        assert_eq!(cell, noise);
    }
    rows.len() / 7
}

pub(in crate::crypto) fn key_update_vectors() -> usize {
    let rows = table(&testdata("cgo_uiv.rs"), "UIV_UPDATE_TEST_VECTORS");
    for row in rows.chunks(4) {
        let fresh = Uiv::new(&quarters(&row[0].bytes())).next_keys(&row[1].bytes());
        assert_eq!(fresh[..UIV_KEY_BYTES], row[2].bytes::<UIV_KEY_BYTES>());
        assert_eq!(fresh[UIV_KEY_BYTES..], row[3].bytes::<TAG_BYTES>());
    }
    rows.len() / 4
}

pub(in crate::crypto) fn stream_vectors() -> usize {
    let rows = table(&testdata("cgo_prf.rs"), "PRF_TEST_VECTORS");
    for row in rows.chunks(4) {
        let mut keys = [0; UIV_KEY_BYTES];
        keys[32..].copy_from_slice(&row[0].bytes::<32>());
        let Token::Number(domain) = row[1] else {
            panic!("a domain is a number")
        };
        let Token::Bytes(expected) = &row[3] else {
            panic!("a stream is bytes")
        };
        let mut stream = vec![0; expected.len()];
        let from = if domain == 0 { CELL_STREAM } else { KEY_STREAM };
        let uiv = Uiv::new(&quarters(&keys));
        uiv.stream(&row[2].bytes(), from).apply_keystream(&mut stream);
        assert_eq!(&stream, expected);
    }
    rows.len() / 4
}

/// Cells that pass a relay, and cells that it makes.
pub(in crate::crypto) fn relay_vectors() -> usize {
    let (text, mut count) = (testdata("cgo_relay.rs"), 0);
    for row in table(&text, "CGO_RELAY_TEST_VECTORS").chunks(12) {
        let state = direction(&row[1], &row[2], &row[3]);
        let command = row[4].bytes::<1>()[0];
        let (came, mut cell) = (body(&row[5], &row[6]), [7; BODY_BYTES]);
        let state = if row[0].flag() {
            let mut backward = RelayBackward(state);
            backward.pass(command, &came, &mut cell);
            backward.0
        } else {
            let mut forward = RelayForward(state);
            forward.receive(command, &came, &mut cell);
            forward.0
        };
        assert_eq!(cell, body(&row[10], &row[11]));
        assert_alike(state, direction(&row[7], &row[8], &row[9]));
        count += 1;
    }
    for row in table(&text, "CGO_RELAY_ORIGINATE_TEST_VECTORS").chunks(10) {
        let mut backward = RelayBackward(direction(&row[0], &row[1], &row[2]));
        let (mut plain, mut cell) = ([0; BODY_BYTES], [7; BODY_BYTES]);
        plain[TAG_BYTES..].copy_from_slice(&row[4].bytes::<RIGHT_BYTES>());
        backward.originate(row[3].bytes::<1>()[0], &mut plain, &mut cell);
        assert_eq!(cell, body(&row[8], &row[9]));
        assert_alike(backward.0, direction(&row[5], &row[6], &row[7]));
        count += 1;
    }
    count
}

/// A client's cells for one of three hops, and what it remembers of each hop afterwards.
pub(in crate::crypto) fn client_vectors() -> usize {
    let rows = table(&testdata("cgo_client.rs"), "CGO_CLIENT_ORIGINATE_TEST_VECTORS");
    for row in rows.chunks(23) {
        let hops = |from: usize| {
            row[from..from + 9]
                .chunks(3)
                .map(|hop| direction(&hop[0], &hop[1], &hop[2]))
        };
        let mut client = ClientForward::default();
        for (hop, tokens) in hops(0).zip(row[..9].chunks(3)) {
            let mut keys = [0; KEY_BYTES];
            keys[..UIV_KEY_BYTES].copy_from_slice(&tokens[0].bytes::<UIV_KEY_BYTES>());
            keys[UIV_KEY_BYTES..].copy_from_slice(&hop.nonce);
            client.extend(&keys);
            client.remember(hop.chain);
        }
        let Token::Number(to) = row[9] else {
            panic!("a hop is a number")
        };
        let mut cell = [0; BODY_BYTES];
        cell[TAG_BYTES..].copy_from_slice(&row[11].bytes::<RIGHT_BYTES>());
        client.originate(usize::from(to) - 1, row[10].bytes::<1>()[0], &mut cell);
        assert_eq!(cell, body(&row[21], &row[22]));
        for (uiv, expected) in client.into_states().zip(hops(12)) {
            let (uiv, nonce, chain) = uiv;
            let mut hop = Direction::new(&[0; KEY_BYTES]);
            (hop.set_up, hop.nonce, hop.chain) = (Some(Box::new(uiv)), nonce, chain);
            assert_alike(hop, expected);
        }
    }
    rows.len() / 23
}

#[test]
fn a_client_and_three_relays_understand_each_other_in_both_directions() {
    let keys = |hop: u8, way: u8| std::array::from_fn(|at| hop ^ way ^ at as u8);
    let (mut to_relays, mut from_relays) = (ClientForward::default(), ClientBackward::default());
    let mut relays: Vec<_> = (1..=3)
        .map(|hop| {
            to_relays.extend(&keys(hop, 0));
            from_relays.extend(&keys(hop, 64));
            (RelayForward::new(&keys(hop, 0)), RelayBackward::new(&keys(hop, 64)))
        })
        .collect();

    for round in 0..20_u8 {
        let target = usize::from(round) % 3;
        let mut cell = [round; BODY_BYTES];
        let promised = to_relays.originate(target, 3, &mut cell).unwrap();
        let arrived = (0..3).find_map(|hop| {
            let came = cell;
            relays[hop].0.receive(3, &came, &mut cell).map(|tag| (hop, tag))
        });
        assert_eq!(arrived, Some((target, promised)));
        assert_eq!(cell[TAG_BYTES..], [round; RIGHT_BYTES]);

        let mut answer = [0; BODY_BYTES];
        let promised = relays[target].1.originate(3, &mut [!round; BODY_BYTES], &mut answer);
        for hop in (0..target).rev() {
            let came = answer;
            relays[hop].1.pass(3, &came, &mut answer);
        }
        assert_eq!(from_relays.receive(3, &mut answer), Some((target, promised)));
        assert_eq!(answer[TAG_BYTES..], [!round; RIGHT_BYTES]);
    }
}

#[test]
fn one_changed_bit_makes_noise_of_the_whole_cell() {
    let keys = std::array::from_fn(|at| at as u8);
    let (mut client, mut relay) = (ClientForward::default(), RelayForward::new(&keys));
    client.extend(&keys);
    let mut cell = [0; BODY_BYTES];
    client.originate(0, 3, &mut cell).unwrap();
    cell[400] ^= 1;
    let came = cell;
    assert_eq!(relay.receive(3, &came, &mut cell), None);
    let unchanged = cell[TAG_BYTES..].iter().filter(|byte| **byte == 0).count();
    assert!(unchanged < 20, "{unchanged} bytes kept their plain text");
}

#[test]
fn keys_give_the_same_cells_whether_they_are_set_up_or_not() {
    let keys = std::array::from_fn(|at| at as u8);
    let (mut kept, mut rested) = (RelayBackward::new(&keys), RelayBackward::new(&keys));
    for round in 0..40_u8 {
        // Of every kind both after one that passed and after one of our own.
        let (mut cell, mut one, mut other) = ([round; BODY_BYTES], [1; BODY_BYTES], [2; BODY_BYTES]);
        match round % 4 {
            0 | 1 => {
                kept.pass(3, &cell, &mut one);
                rested.pass(3, &cell, &mut other);
            }
            _ => {
                let tag = kept.originate(3, &mut cell, &mut one);
                assert_eq!(tag, rested.originate(3, &mut cell, &mut other));
            }
        }
        assert_eq!(one, other, "cell {round}");
        rested.rest_if_idle();
        rested.rest_if_idle();
        assert!(rested.0.set_up.is_none());
    }
}

#[test]
fn who_let_cells_pass_lately_stays_set_up_and_an_end_never_is() {
    let keys = std::array::from_fn(|at| at as u8);
    let mut middle = RelayForward::new(&keys);
    let mut room = [0; BODY_BYTES];
    assert_eq!(middle.receive(3, &[9; BODY_BYTES], &mut room), None);
    middle.rest_if_idle();
    assert!(middle.0.set_up.is_some(), "it has just worked");

    let (mut client, mut end) = (ClientForward::default(), RelayForward::new(&keys));
    client.extend(&keys);
    for _ in 0..3 {
        let mut cell = [0; BODY_BYTES];
        let promised = client.originate(0, 3, &mut cell);
        assert_eq!(end.receive(3, &cell, &mut room), promised);
        assert!(end.0.set_up.is_none());
    }
}
