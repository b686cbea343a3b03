//! The shared backend: Redis or Valkey, in which several gateways have one queue.

pub mod options;
