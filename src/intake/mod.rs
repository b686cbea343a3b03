//! Intake: judges and repairs what a listener received, and answers for it.
//!
//! `policy` says who may send what, `prepare` turns `Received` into `Accepted`, `direct` hands it to delivery while the
//! client waits and puts the provider's words into the reply. The listener sees only `inbound::Intake`.

mod direct;
mod policy;
mod prepare;

pub use direct::DirectIntake;
pub use policy::Policy;
