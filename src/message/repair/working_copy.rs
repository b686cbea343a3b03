//! `WorkingCopy`: a message under repair, and its parts as they were last found.

use crate::message::RawMessage;
use crate::message::mime::Structure;
use bytes::Bytes;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Most steps look at the parts and change nothing, so the parts are searched for once and not by each step.
#[derive(Debug, Clone)]
pub(super) struct WorkingCopy {
    message: RawMessage,
    known: Option<Arc<KnownStructure>>,
}

/// The parts of a message with this header and this body.
#[derive(Debug)]
struct KnownStructure {
    header: Vec<u8>,
    body: Bytes,
    structure: Arc<Structure>,
}

impl WorkingCopy {
    pub fn of(message: &RawMessage) -> Self {
        Self { message: message.clone(), known: None }
    }

    pub fn replace(&mut self, message: RawMessage) {
        self.message = message;
    }

    pub fn into_message(self) -> RawMessage {
        self.message
    }

    pub fn structure(&mut self) -> Arc<Structure> {
        let header = self.message.header();
        let body = self.message.body();
        match &self.known {
            Some(known) if known.header == header && is_same(&known.body, body) => known.structure.clone(),
            _ => {
                let structure = Arc::new(Structure::of(&self.message));
                let known =
                    KnownStructure { header: header.to_vec(), body: body.clone(), structure: structure.clone() };
                self.known = Some(Arc::new(known));
                structure
            }
        }
    }

    pub fn equals(&self, other: &Self) -> bool {
        is_same(self.body(), other.body()) && self.header() == other.header()
    }
}

/// A body is only ever replaced as a whole, so there is no need to compare octets.
fn is_same(one: &Bytes, other: &Bytes) -> bool {
    one.as_ptr() == other.as_ptr() && one.len() == other.len()
}

impl Deref for WorkingCopy {
    type Target = RawMessage;

    fn deref(&self) -> &RawMessage {
        &self.message
    }
}

impl DerefMut for WorkingCopy {
    fn deref_mut(&mut self) -> &mut RawMessage {
        &mut self.message
    }
}
