//! Hostile input, class by class: each test counts its cases for the table of `make hostile`.

mod addresses;
mod exhaustion;
mod html;
mod panics;
mod relay;
mod smuggling;
mod starttls;
