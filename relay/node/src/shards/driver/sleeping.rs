//! Sleep by the quota (`AccountingMax`): nobody new comes in, then nobody is left.

use mio::{Interest, Token};
use relay_engine::door::Input;
use relay_formats::facts::AccountingState;
use socket2::SockRef;

use super::{Driver, FIRST_LISTENER};
use crate::link;

impl Driver {
    pub(super) fn sleep_or_wake(&mut self, state: AccountingState) {
        if self.retiring {
            return;
        }
        let asleep = state != AccountingState::Awake;
        if asleep != self.asleep {
            self.asleep = asleep;
            match asleep {
                true => self.doze_off(),
                false => self.wake_up(),
            }
        }
        if state == AccountingState::Dormant {
            let links: Vec<_> = self.links.keys().copied().collect();
            links.into_iter().for_each(|link| self.lose(link));
        }
    }

    fn doze_off(&mut self) {
        for listener in &mut self.start.listeners {
            let _ = self.registry.deregister(listener);
            // Connections are refused from now on, but the port stays ours: as a simple user we might not get it again.
            if let Err(error) = SockRef::from(&*listener).shutdown(std::net::Shutdown::Read) {
                tracing::warn!("Couldn't close a listener for the time of hibernation: {error}");
            }
        }
        self.to_accept.clear();
        self.accept_again = None;
        self.tell(Input::Retire);
    }

    fn wake_up(&mut self) {
        for (number, listener) in self.start.listeners.iter_mut().enumerate() {
            let opened = SockRef::from(&*listener).listen(link::BACKLOG).and_then(|()| {
                let token = Token(FIRST_LISTENER + number);
                self.registry.register(listener, token, Interest::READABLE)
            });
            if let Err(error) = opened {
                tracing::warn!("Couldn't listen again after hibernation: {error}");
            }
        }
        self.tell(Input::Resume);
    }
}
