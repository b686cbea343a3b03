//! What only this backend promises, and the conformance suite run against it.

pub(super) mod plans;
mod smoke;
