//! Direct handoff: new mail for which a delivery loop has a free slot is stored as leased already and goes to that loop at
//! once. Nobody searches for it, and its life is two transactions instead of three.
//!
//! Beside the store, like the wake-ups. A backend hands over only what a lease could return, so nothing on a held lane.

use super::{Lane, Leased};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender, WeakSender};

/// The largest offer: more than any upstream allows connections.
const MOST: usize = 1024;

#[derive(Debug, Default)]
pub struct Handoffs {
    offers: Arc<Mutex<HashMap<Lane, Offer>>>,
}

/// What a loop can begin at once.
#[derive(Debug)]
struct Offer {
    slots: usize,
    octets: u64,
    to: Sender<Leased>,
}

/// One loop's end. While it exists and has an offer, new mail of its lane may come here.
#[derive(Debug)]
pub struct HandoffReceiver {
    lane: Lane,
    offers: Arc<Mutex<HashMap<Lane, Offer>>>,
    /// Of this receiver's channel. While one takes another's place, both have the lane.
    own: WeakSender<Leased>,
    leased: Receiver<Leased>,
}

/// A free slot that is reserved for one message. If it is not used, the loop offers it again by itself.
#[derive(Debug)]
pub struct HandoffSlot(Sender<Leased>);

impl Handoffs {
    /// One per lane; it offers nothing yet. It takes the place of an earlier one, which gets nothing more.
    pub fn receiver(&self, lane: &Lane) -> HandoffReceiver {
        let (to, leased) = mpsc::channel(MOST);
        self.offers.lock().insert(lane.clone(), Offer { slots: 0, octets: 0, to: to.clone() });
        HandoffReceiver { lane: lane.clone(), offers: self.offers.clone(), own: to.downgrade(), leased }
    }

    /// For a message that needs this much memory; `None` if no loop can begin it at once.
    pub fn reserve(&self, lane: &Lane, octets: u64) -> Option<HandoffSlot> {
        let mut offers = self.offers.lock();
        let offer = offers.get_mut(lane)?;
        offer.slots = offer.slots.checked_sub(1)?;
        offer.octets = offer.octets.checked_sub(octets)?;
        Some(HandoffSlot(offer.to.clone()))
    }
}

impl HandoffSlot {
    /// Returns the lease if the loop does not take it: it has ended meanwhile.
    pub fn hand_over(self, leased: Leased) -> Result<(), Box<Leased>> {
        self.0.try_send(leased).map_err(|unsent| match unsent {
            TrySendError::Full(leased) | TrySendError::Closed(leased) => Box::new(leased),
        })
    }
}

impl HandoffReceiver {
    /// Replaces the offer. Reserved slots stay reserved, so this can be exceeded by what is being stored.
    pub fn offer(&self, slots: usize, octets: u64) {
        if let Some(offer) = self.offers.lock().get_mut(&self.lane)
            && self.is_to(offer)
        {
            (offer.slots, offer.octets) = (slots.min(MOST), octets);
        }
    }

    fn is_to(&self, offer: &Offer) -> bool {
        self.own.upgrade().is_some_and(|own| own.same_channel(&offer.to))
    }

    /// Waits without end if nothing comes.
    pub async fn receive(&mut self) -> Leased {
        match self.leased.recv().await {
            Some(leased) => leased,
            None => std::future::pending().await,
        }
    }

    /// Nothing comes any more; returns what has come.
    pub fn close(&mut self) -> Vec<Leased> {
        self.offer(0, 0);
        self.leased.close();
        std::iter::from_fn(|| self.leased.try_recv().ok()).collect()
    }
}

impl Drop for HandoffReceiver {
    fn drop(&mut self) {
        let mut offers = self.offers.lock();
        if offers.get(&self.lane).is_some_and(|offer| self.is_to(offer)) {
            offers.remove(&self.lane);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_replaced_loop_leaves_the_offer_of_its_successor() {
        let handoffs = Handoffs::default();
        let lane = Lane::new("a");
        let former = handoffs.receiver(&lane);
        former.offer(1, 100);
        let successor = handoffs.receiver(&lane);
        former.offer(1, 100);
        assert!(handoffs.reserve(&lane, 1).is_none(), "the successor has offered nothing");
        successor.offer(1, 100);
        drop(former);
        assert!(handoffs.reserve(&lane, 1).is_some());
        drop(successor);
        assert!(handoffs.reserve(&lane, 1).is_none());
    }
}
