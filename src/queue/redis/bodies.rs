//! How a body is stored: its first octet says how, the rest is the body. Larger ones are compressed (zstd, RFC 8878): memory
//! is what a queue in Redis costs.

use super::record::RecordDamage;
use crate::queue::QueueError;
use bytes::{BufMut, Bytes, BytesMut};
use std::io::Read;
use tokio::task::spawn_blocking;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// In octets. Smaller bodies gain too little.
const WORTH_IT: usize = 2048;
/// Bodies of this size and more are packed outside the runtime's threads.
const LONG_WORK: usize = 64 * 1024;
/// Fast, and what mail gains most by.
const LEVEL: i32 = 1;

pub(super) async fn pack(body: &Bytes) -> Result<Bytes, QueueError> {
    if body.len() < LONG_WORK {
        return Ok(packed(body));
    }
    let body = body.clone();
    spawn_blocking(move || packed(&body)).await.map_err(|_| QueueError::fault())
}

fn packed(body: &[u8]) -> Bytes {
    let compressed = (body.len() >= WORTH_IT).then(|| zstd::encode_all(body, LEVEL).ok()).flatten();
    let (how, octets) = match &compressed {
        Some(compressed) if compressed.len() < body.len() => (ZSTD, compressed.as_slice()),
        _ => (PLAIN, body),
    };
    let mut stored = BytesMut::with_capacity(octets.len() + 1);
    stored.put_u8(how);
    stored.put_slice(octets);
    stored.freeze()
}

/// `most`: the size of the whole message, which bounds its body.
pub(super) fn unpack(stored: &Bytes, most: u64) -> Result<Bytes, RecordDamage> {
    match stored.first() {
        Some(&PLAIN) => Ok(stored.slice(1..)),
        Some(&ZSTD) => {
            let mut body = Vec::new();
            let decoder = zstd::Decoder::new(&stored[1..]).map_err(|_| RecordDamage::Content)?;
            decoder.take(most.saturating_add(1)).read_to_end(&mut body).map_err(|_| RecordDamage::Content)?;
            if body.len() as u64 > most { Err(RecordDamage::Content) } else { Ok(body.into()) }
        }
        _ => Err(RecordDamage::Content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_body_is_whole_and_none_takes_more_than_an_octet_besides() {
        for length in [0, 1, WORTH_IT - 1, WORTH_IT, 100_000] {
            let text: Bytes = (0..length).map(|at| b'a' + (at % 23) as u8).collect::<Vec<_>>().into();
            let mut noise = 1_u64;
            let random: Bytes = (0..length)
                .map(|_| {
                    noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (noise >> 56) as u8
                })
                .collect::<Vec<_>>()
                .into();
            for body in [text, random] {
                let stored = packed(&body);
                assert!(stored.len() <= body.len() + 1);
                assert_eq!(unpack(&stored, length as u64).unwrap(), body);
            }
        }
        let bomb = packed(&vec![0; 10_000_000]);
        assert!(bomb.len() < 10_000 && unpack(&bomb, 1000).is_err(), "no more memory than the message needs");
        assert!(unpack(&Bytes::new(), 9).is_err() && unpack(&Bytes::from_static(b"?"), 9).is_err());
    }
}
