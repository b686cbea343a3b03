//! How many connections the scripted provider serves at once, and its reply to the others.

use super::script::{Action, At};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};

#[derive(Debug, Default)]
pub struct Places {
    /// Where others are told, and what. `None`: there is a place for everybody.
    refusal: Option<(At, Action)>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    most: usize,
    taken: usize,
    /// Numbers of connections that have no place.
    surplus: HashSet<usize>,
}

/// Taken until it is dropped.
pub struct Place(Arc<Mutex<State>>);

impl Places {
    pub fn new(most: usize, at: At, action: Action) -> Self {
        Self { refusal: Some((at, action)), state: Arc::new(Mutex::new(State { most, ..State::default() })) }
    }

    pub fn allow(&self, most: usize) {
        self.state.lock().unwrap().most = most;
    }

    /// `None`: this connection has no place.
    pub fn take(&self, connection: usize) -> Option<Place> {
        let mut state = self.state.lock().unwrap();
        if self.refusal.is_some() && state.taken >= state.most {
            state.surplus.insert(connection);
            return None;
        }
        state.taken += 1;
        Some(Place(Arc::clone(&self.state)))
    }

    /// What this connection is told here instead of the usual.
    pub fn refusal(&self, connection: usize, at: At) -> Option<Action> {
        let (place, action) = self.refusal.as_ref()?;
        let is_surplus = self.state.lock().unwrap().surplus.contains(&connection);
        (is_surplus && *place == at).then(|| action.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().unwrap().taken -= 1;
    }
}
