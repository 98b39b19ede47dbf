//! The way in: the `interrex` program. Daemon, command line, HTTP.

pub mod config;
