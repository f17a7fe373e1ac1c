//! The quota: what the keeper of the books says goes on to the shards.

use std::time::SystemTime;

use relay_formats::facts::AccountingState;

use super::start::Relay;
use crate::shards::Order;

/// One look at the books, which the relay follows.
pub(super) fn look(relay: &mut Relay) {
    let state = relay.keeper.look(SystemTime::now());
    if state == std::mem::replace(&mut relay.hibernation, state) {
        return;
    }
    let listening = match state {
        AccountingState::Awake => relay.bound.clone(),
        AccountingState::SoftLimit | AccountingState::Dormant => Vec::new(),
    };
    relay.board.note_listening(listening);
    relay
        .shards
        .iter()
        .for_each(|shard| shard.post(Order::Hibernate(state)));
}

/// After a reload.
pub(super) fn reload(relay: &mut Relay) {
    let (config, identity) = (relay.config.borrow().clone(), relay.keys.borrow().rsa_identity());
    relay.keeper.configure(&config, identity, SystemTime::now());
    look(relay);
}
