//! The requests of operators: one set of requests and answers, used in the same form beside a running gateway (through
//! its socket) and without one.
//!
//! `protocol` has the requests and answers, `wire` their lines. `execute` and `change` carry them out on an
//! [`Operator`](crate::queue::Operator) with the current rules and routes. `server` and `client` are the two ends of
//! the socket. `status` gathers the state of the gateway as a whole. Answers are bounded: lists and changes of many messages are split into pages.

mod change;
mod client;
mod execute;
mod protocol;
mod server;
mod socket;
mod status;
mod wire;

pub use change::CurrentRules;
pub(crate) use client::{ask, connect};
pub(crate) use execute::execute;
pub(crate) use protocol::{
    Blame, Change, Changed, ControlRefusal, ControlRequest, ControlResponse, MAX_PAGE, MAX_RULED, Overview, Reloaded,
    RuledMessage, SubmissionReply, Which,
};
pub use server::{ControlServer, Examiner, GatewayHooks, Submitter};
pub(crate) use status::{
    CertificateStatus, DkimKeyStatus, GatewayStatus, LaneStatus, StatusProblem, WaitReason, gather, is_held,
};
pub use status::{LiveStatus, LiveWatch};

#[cfg(test)]
mod tests;
