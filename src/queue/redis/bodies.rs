//! How a body is stored: its first octet says how, the rest is the body.

use super::record::RecordDamage;
use bytes::{BufMut, Bytes, BytesMut};

const PLAIN: u8 = 0;

pub(super) fn pack(body: &Bytes) -> Bytes {
    let mut stored = BytesMut::with_capacity(body.len() + 1);
    stored.put_u8(PLAIN);
    stored.put_slice(body);
    stored.freeze()
}

pub(super) fn unpack(stored: &Bytes) -> Result<Bytes, RecordDamage> {
    match stored.first() {
        Some(&PLAIN) => Ok(stored.slice(1..)),
        _ => Err(RecordDamage::Content),
    }
}
