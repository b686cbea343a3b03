//! Intake: checks and repairs what a listener received, and takes responsibility for it.
//!
//! `policy` says who may send what, `prepare` turns `Received` into `Accepted`. Then `queued` stores it, or `direct` hands it
//! to delivery while the client waits, puts the provider's words into the reply, and keeps what is left over. The
//! listener sees only `inbound::Intake`. `rerun` asks the rules of today about mail that was stored before,
//! `dry_run` shows what would happen to a message.

mod direct;
mod dry_run;
mod fit;
mod leftovers;
mod pipeline;
mod policy;
mod prepare;
mod queued;
mod rerun;

pub use direct::DirectIntake;
pub use dry_run::IntakeDryRun;
pub use leftovers::Leftovers;
pub use pipeline::IntakePipeline;
pub use policy::SenderPolicy;
pub use prepare::{IntakeReport, Rejection};
pub use queued::QueuedIntake;
pub use rerun::{Ruling, rerun};
