//! The adapters alone, on a real main and its standby, and on real Redis servers: no supervisor, no actor.

#![allow(clippy::unwrap_used, reason = "all of it is tests: a surprise fails the one it happens in")]

mod control_file;
mod handover;
mod hostile;
mod names;
mod pair;
mod redis;
mod rejoin;
mod reserving;
mod settings;
mod standby;
mod start;
mod stream;
