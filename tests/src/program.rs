//! The program under test, and the way a test runs beside it.

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use interrex::sandbox::{Done, SandboxError};
use tokio::task::LocalSet;

/// The `interrex` program of this very source: built once, beside the test that asks for it. `INTERREX_PROGRAM` names a program that
/// was built just before.
///
/// # Panics
/// It does not build.
#[must_use]
pub fn interrex() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| build().unwrap_or_else(|message| fail(&message)))
}

fn build() -> Result<PathBuf, String> {
    if let Some(program) = std::env::var_os("INTERREX_PROGRAM") {
        return Ok(program.into());
    }
    // target/<profile>/deps/<test>: the program lies two folders up
    let test = std::env::current_exe().map_err(|error| error.to_string())?;
    let profile = test.ancestors().find(|folder| folder.ends_with("debug") || folder.ends_with("release"));
    let profile = profile.ok_or_else(|| format!("{} is not in a target folder", test.display()))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked", "--package", "interrex", "--manifest-path"]);
    cargo.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    match cargo.status() {
        Ok(end) if end.success() => Ok(profile.join("interrex")),
        Ok(end) => Err(format!("the program under test does not build: {end}")),
        Err(error) => Err(format!("cargo does not start: {error}")),
    }
}

/// Runs a test as a supervisor runs: on one thread, with a `LocalSet`.
///
/// # Panics
/// The test failed.
pub fn run(test: impl Future<Output = Done<()>>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| SandboxError::failed("making a runtime", error));
    let ended = runtime.and_then(|runtime| LocalSet::new().block_on(&runtime, test));
    if let Err(error) = ended {
        fail(&error.to_string());
    }
}

#[allow(clippy::panic, reason = "this is how a test fails")]
fn fail(message: &str) -> ! {
    panic!("{message}")
}
