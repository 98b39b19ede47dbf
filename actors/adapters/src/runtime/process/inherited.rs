//! What a supervisor inherited from its parent process, and must not pass on to its children.

use std::{fs, os::fd::OwnedFd};

use rustix::{
    fs::Mode,
    process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open, umask},
};

/// The last descriptor that every program has.
const STANDARD: i32 = 2;
/// The flag of a descriptor that no child gets, as `/proc` shows it.
const CLOSE_ON_EXEC: u32 = 0o2_000_000;
/// Only the owner may write a new file, with any inherited umask.
const NOT_FOR_OTHERS: Mode = Mode::WGRP.union(Mode::WOTH);

/// Hides inherited descriptors from children, and makes new files writable only for their owner. Call this before anything is
/// opened. Returns the descriptors under other numbers, because one of them may be a lock. If the system does not allow this, as in
/// some containers, they stay as they are.
#[must_use]
pub fn leave_nothing_inherited() -> Vec<OwnedFd> {
    let before = umask(NOT_FOR_OTHERS);
    umask(before | NOT_FOR_OTHERS);
    let Ok(me) = pidfd_open(getpid(), PidfdFlags::empty()) else { return Vec::new() };
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten();
    let open: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > STANDARD && is_inheritable(*number))
        .collect();
    open.into_iter()
        .filter_map(|number| {
            // the other number is not inherited; this one is closed
            let held = pidfd_getfd(&me, number, PidfdGetfdFlags::empty()).ok()?;
            nix::unistd::close(number).ok()?;
            Some(held)
        })
        .collect()
}

/// Whether children would inherit a descriptor. Descriptors that this program opens itself close at an exec.
fn is_inheritable(number: i32) -> bool {
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
    let flags = about.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & CLOSE_ON_EXEC == 0)
}

/// Signals that this process inherited as ignored and that a child must be able to get: an ignored signal stays ignored in every
/// child.
#[must_use]
pub fn ignored_signals() -> Vec<i32> {
    use rustix::process::Signal;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    let wanted = [
        Signal::HUP,
        Signal::INT,
        Signal::QUIT,
        Signal::TERM,
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::CHILD,
        Signal::URG,
        Signal::IO,
    ];
    wanted.iter().map(|signal| signal.as_raw()).filter(|number| ignored >> (number - 1) & 1 == 1).collect()
}
