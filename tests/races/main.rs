//! Requests, renewals, log-outs, migrations and manager swaps that overlap, in every order.
//!
//! `interleavings` replaces the process-wide manager, under a lock of its own; the other modules mount
//! each manager themselves.

#[path = "../common/mod.rs"]
mod common;

mod disturbed;
mod interleavings;
mod limits;
mod migrate;
