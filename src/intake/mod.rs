//! Intake: checks and repairs what a listener received, and takes responsibility for it.
//!
//! `pipeline` holds what a listener's intake is configured to do, `policy` says who may send what, and `prepare` turns
//! `Received` into `Accepted`. Then `queued` stores it; or `direct` passes it to delivery while the client waits, puts
//! the provider's words into the reply, and keeps the remaining recipients. `deduplication` recognises a message that a
//! client submits again, `storm` one that equals many before it, and `silence` notices mail that does not come. The listener sees only `inbound::Intake`. `rerun` applies the current rules to mail that was
//! stored before, and `dry_run` shows what would happen to a message.

mod deduplication;
mod direct;
mod dry_run;
mod fit;
mod leftovers;
mod pipeline;
mod policy;
mod prepare;
mod queued;
mod report;
mod rerun;
mod silence;
mod storm;

pub(crate) use deduplication::InProgress;
pub(crate) use direct::DirectIntake;
pub(crate) use dry_run::IntakeDryRun;
pub(crate) use leftovers::Leftovers;
pub(crate) use pipeline::IntakePipeline;
pub(crate) use policy::SenderPolicy;
pub(crate) use prepare::{IntakeReport, Rejection};
pub(crate) use queued::QueuedIntake;
pub use rerun::{Ruling, rerun};
pub use silence::{Expectation, ExpectedStatus, NoticeOptions, NoticeWriter, SilenceWatch};
pub use storm::{StormOptions, StormWatch};
