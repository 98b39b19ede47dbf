//! The adapters of PostgreSQL alone, on a real main and its standby: no supervisor, no actor.

#![allow(clippy::unwrap_used, reason = "all of it is tests: a surprise fails the one it happens in")]

mod handover;
mod hostile;
mod names;
mod pair;
mod rejoin;
mod reserving;
mod settings;
mod standby;
mod start;
mod stream;
