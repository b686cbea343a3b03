//! Hostile input, class by class: each test counts its cases for the table of `make hostile`.

mod exhaustion;
mod smuggling;
