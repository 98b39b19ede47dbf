//! The adapters behind the ports of `interrex-actors`: PostgreSQL, Redis, processes, peers over HTTP, hooks.
//!
//! **Invariant:** an adapter decides nothing: the core asks through a port, and the answer is what the adapter observed.

pub mod checksums;
mod copying;
pub mod dependents;
pub mod guarded;
pub mod hooks;
mod no_reply;
pub mod peers;
pub mod postgres;
pub mod redis;
pub mod runtime;
pub mod secret;
pub mod stream;
