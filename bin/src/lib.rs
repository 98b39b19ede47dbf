//! The way in: the `interrex` program. Daemon, command line, HTTP.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod doctor;
mod harmless;
pub mod salvage;
pub mod sandbox;
mod wrap;
