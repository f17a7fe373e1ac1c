//! News from other threads.

use std::mem;
use std::sync::Arc;

use relay_engine::Tally;
use relay_engine::door::{Input, Load, ShardId};

use super::super::mailbox::Order;
use super::{Driver, SPARE_LOADS_MAX, STOPPING_TIME_MAX, ShardNews};
use crate::link::Stage;

impl Driver {
    pub(super) fn read_mail(&mut self) {
        self.inbox.open();
        while let Some(order) = self.inbox.next() {
            match order {
                Order::Settings(settings) => {
                    self.start.settings = Arc::clone(&settings);
                    self.tell(Input::Settings(settings));
                    self.limit_links();
                }
                Order::Network(network) => {
                    self.start.network = Arc::clone(&network);
                    self.tell(Input::Network(network));
                    self.limit_links();
                }
                Order::LinkKeys(keys) => self.start.link_keys = keys,
                Order::OnionAnswered { ticket, answer } => self.tell(Input::OnionAnswered { ticket, answer }),
                Order::ExitRules(rules) => self.use_exit_rules(rules),
                Order::NameAnswered { key, outcome } => self.on_name(&key, &outcome),
                Order::Hibernate(state) => self.sleep_or_wake(state),
                Order::Retire => self.retire(),
                Order::Count(answer) => {
                    // Who asked may have lost patience.
                    let _ = answer.send(self.tally());
                }
                Order::Carried { from, load } => self.carried(from, load),
                Order::Welcome { stream, peer, place } => self.welcome(stream, peer, place),
                Order::Stop => self.stop(),
            }
        }
    }

    fn carried(&mut self, from: ShardId, mut load: Load) {
        self.look_at_clock();
        self.tell(Input::Carried { from, load: &mut load });
        if self.spare_loads.len() < SPARE_LOADS_MAX {
            self.spare_loads.push(load);
        } else {
            // Who sends us more than we send back would have to make new ones for ever.
            self.siblings.keep_load(load);
        }
    }

    /// Sends what the engine has for other shards, where it is more than so many bytes of cells.
    pub(super) fn post_loads(&mut self, bytes_min: usize) {
        for (shard, waiting) in self.outbox.carry.waiting() {
            if waiting.cell_bytes() < bytes_min {
                continue;
            }
            let spare = self.spare_loads.pop().unwrap_or_else(|| self.siblings.spare_load());
            let load = mem::replace(waiting, spare);
            if let Some(mailbox) = self.siblings.mailbox(shard) {
                let from = self.own;
                mailbox.post(Order::Carried { from, load });
            }
        }
    }

    /// Every circuit is destroyed; links close when they have said so, or their time for it is over.
    fn stop(&mut self) {
        self.close_listeners();
        self.stop_at = Some(self.now() + STOPPING_TIME_MAX);
        self.tell(Input::Retire);
        self.tell(Input::EndCircuits);
    }

    /// Once told to stop: ends what has nothing to say any more.
    pub(super) fn close_silent(&mut self) {
        if self.stop_at.is_none() {
            return;
        }
        let stages: Vec<_> = self
            .links
            .iter()
            .map(|(name, link)| (*name, link.stage, link.wants))
            .collect();
        for (name, stage, wants) in stages {
            match stage {
                Stage::Open if !wants => self.close(name),
                Stage::Open | Stage::Closing | Stage::Ended => {}
                Stage::Connecting | Stage::Handshaking => self.lose(name),
            }
        }
    }

    pub(super) fn retire(&mut self) {
        self.close_listeners();
        self.retiring = true;
        self.tell(Input::Retire);
    }

    fn close_listeners(&mut self) {
        for mut listener in self.start.listeners.drain(..) {
            let _ = self.registry.deregister(&mut listener);
        }
        self.to_accept.clear();
        self.accept_again = None;
    }

    pub(super) fn say_quiet(&mut self) {
        if self.retiring && !self.quiet_said && self.tally().circuits_open == 0 {
            self.quiet_said = true;
            (self.start.on_news)(ShardNews::Quiet);
        }
    }

    pub(super) fn tally(&self) -> Tally {
        Tally {
            memory_dns_bytes_reclaimed: self.exits.forgotten_bytes,
            ..self.engine.tally()
        }
    }
}
