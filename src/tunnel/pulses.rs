//! The clients of a tunnel as operators see them, whether they are there or not.

use std::sync::Arc;

use uuid::Uuid;

use super::serving::Arrival;
use crate::link::sockets::pulse::{Identity, Pulse};
use crate::proto::limits::pulse::LOST;

/// In the order in which they were first seen. Mostly there is one.
#[derive(Default)]
pub(super) struct Pulses {
    list: Vec<Arc<Pulse>>,
    /// Of the client that asked last to serve the tunnel.
    newest: Option<u64>,
}

impl Pulses {
    /// The one that the new `session` goes on with: that of the session before it, or of the only client that the tunnel
    /// has; among replicas that of one that is gone and came from the same address.
    pub(super) fn join(
        &mut self,
        shared: bool,
        arrival: Arrival,
        identity: Identity,
        session: Uuid,
    ) -> Arc<Pulse> {
        let Arrival { number, successor_of } = arrival;
        if !shared && self.newest.is_some_and(|newest| newest > number) {
            // Another one serves the tunnel already, and stays.
            return Arc::new(Pulse::new(identity, session));
        }
        self.newest = self.newest.max(Some(number));
        let address = identity.address;
        let succeeded = self.list.iter().position(|pulse| Some(pulse.session()) == successor_of);
        let back = || self.list.iter().position(|pulse| pulse.gone_from() == Some(address));
        let only = || self.list.len().checked_sub(1).filter(|_| !shared);
        match succeeded.or_else(only).or_else(back).map(|at| Arc::clone(&self.list[at])) {
            Some(pulse) => {
                pulse.resume(identity, session);
                if !shared {
                    self.list = vec![Arc::clone(&pulse)];
                }
                pulse
            }
            None => {
                let pulse = Arc::new(Pulse::new(identity, session));
                self.list.push(Arc::clone(&pulse));
                let mut gone = self.list.iter().filter(|pulse| pulse.gone_from().is_some()).count();
                self.list.retain(|pulse| {
                    let goes = gone > LOST && pulse.gone_from().is_some();
                    gone -= usize::from(goes);
                    !goes
                });
                pulse
            }
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Pulse>> {
        self.list.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Speaks;

    fn from(host: u8) -> Identity {
        Identity { address: [10, 0, 0, host].into(), agent: None, speaks: Speaks::Wsmux }
    }

    fn after(number: u64, successor_of: Option<Uuid>) -> Arrival {
        Arrival { number, successor_of }
    }

    #[tokio::test]
    async fn the_only_client_of_a_tunnel_is_the_same_from_wherever_it_comes_back() {
        let mut pulses = Pulses::default();
        let first = pulses.join(false, after(1, None), from(1), Uuid::new_v4());
        let second = pulses.join(false, after(3, None), from(2), Uuid::new_v4());
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!((pulses.all().len(), second.sight().reconnects), (1, 1));
        let late = pulses.join(false, after(2, None), from(1), Uuid::new_v4());
        assert!(!Arc::ptr_eq(&late, &second) && pulses.all().len() == 1);
    }

    #[tokio::test]
    async fn replicas_are_told_apart_and_go_on_with_their_own() {
        let mut pulses = Pulses::default();
        let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
        let one = pulses.join(true, after(1, None), from(1), first);
        let two = pulses.join(true, after(2, None), from(1), second);
        assert!(!Arc::ptr_eq(&one, &two));
        assert!(Arc::ptr_eq(&two, &pulses.join(true, after(3, Some(second)), from(3), Uuid::new_v4())));
        assert_eq!(pulses.all().len(), 2);
    }
}
