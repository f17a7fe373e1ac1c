//! News from other threads.

use relay_engine::Tally;
use relay_engine::door::Input;

use super::super::mailbox::Order;
use super::{Driver, ShardNews};

impl Driver {
    pub(super) fn read_mail(&mut self) {
        while let Ok(order) = self.inbox.try_recv() {
            match order {
                Order::Settings(settings) => self.tell(Input::Settings(settings)),
                Order::Network(network) => self.tell(Input::Network(network)),
                Order::LinkKeys(keys) => self.start.link_keys = keys,
                Order::OnionAnswered { ticket, answer } => self.tell(Input::OnionAnswered { ticket, answer }),
                Order::ExitRules(rules) => self.use_exit_rules(rules),
                Order::NameAnswered { key, outcome } => self.on_name(&key, &outcome),
                Order::Retire => self.retire(),
                Order::Count(answer) => {
                    // Who asked may have lost patience.
                    let _ = answer.send(self.tally());
                }
                Order::Stop => self.stopping = true,
            }
        }
    }

    pub(super) fn retire(&mut self) {
        for mut listener in self.start.listeners.drain(..) {
            let _ = self.poll.registry().deregister(&mut listener);
        }
        self.to_accept.clear();
        self.accept_again = None;
        self.retiring = true;
        self.tell(Input::Retire);
    }

    pub(super) fn say_quiet(&mut self) {
        if self.retiring && !self.quiet_said && self.tally().circuits_open == 0 {
            self.quiet_said = true;
            (self.start.on_news)(ShardNews::Quiet);
        }
    }

    pub(super) fn tally(&self) -> Tally {
        self.engine.tally()
    }
}
