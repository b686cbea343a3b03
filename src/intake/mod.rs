//! Intake: judges and repairs what a listener received, and answers for it.
//!
//! `policy` says who may send what, `prepare` turns `Received` into `Accepted`. Then `queued` stores it, or `direct` hands it
//! to delivery while the client waits, puts the provider's words into the reply, and keeps what is left over. The
//! listener sees only `inbound::Intake`. `rerun` asks the rules of today about mail that was stored before,
//! `rehearsal` says what would become of a message.

mod direct;
mod fit;
mod leftovers;
mod policy;
mod prepare;
mod queued;
mod reception;
mod rehearsal;
mod rerun;

pub use direct::DirectIntake;
pub use leftovers::Leftovers;
pub use policy::Policy;
pub use prepare::{Account, Turned};
pub use queued::QueuedIntake;
pub use reception::Reception;
pub use rehearsal::Rehearsal;
pub use rerun::{Rerun, rerun};
