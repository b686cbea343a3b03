//! Random numbers for names that must not collide and for waits that must not coincide. Never for keys.

use tracing::warn;

/// From the system. If it has none, the result is 0, which only makes waits less spread.
pub fn random_u32() -> u32 {
    let mut bytes = [0; 4];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u32::from_le_bytes(bytes),
        Err(_) => {
            warn!("the system has no randomness to give; message ids are distinguished by time alone");
            0
        }
    }
}

/// The same, for jitter.
pub fn jitter() -> u16 {
    random_u32() as u16
}
