//! All integration tests in one binary: linked once. One file per scenario, named by what a user would see.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

mod cap;
mod check_message;
mod clean_clone;
mod clients_are_served;
mod commands;
mod configuration_mistakes;
mod corpus;
mod crash;
mod deliverability;
mod dialogs;
mod direct_replies;
mod dkim_commands;
mod dkim_verify;
mod environment;
mod everything_verifies;
mod first_run;
mod hostile;
mod hostile_log;
mod limits;
mod log_is_gone;
mod logins;
mod open_files;
mod own_server;
mod peers_work;
mod plausible_rules;
mod provider_logins;
mod providers;
mod queue_after_a_change;
mod queue_beside_gateway;
mod queue_bounces;
mod queue_commands;
mod queue_direct;
mod queue_fairness;
mod queue_outages;
mod queue_recipients;
mod queue_restarts;
mod queue_space;
mod refused_starts;
mod relay_certificates;
mod relay_log;
mod relay_login;
mod relay_one_message;
mod relay_pool;
mod relay_ports;
mod relay_refusals;
mod relay_starttls;
mod replay;
mod retry_by_rules;
mod routes;
mod rules;
mod secrets;
mod starttls_or_nothing;
