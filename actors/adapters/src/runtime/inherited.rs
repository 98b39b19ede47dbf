//! What a supervisor got from whoever started it, and its children must not get from it.

use std::{fs, os::fd::OwnedFd};

use rustix::{
    fs::Mode,
    process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open, umask},
};

/// The descriptors that every program has.
const STANDARD: i32 = 2;
/// The flag of a descriptor that no child gets, as `/proc` shows it.
const CLOSE_ON_EXEC: u32 = 0o2_000_000;
/// What nobody but the owner may do to a new file, whatever was inherited.
const NOT_FOR_OTHERS: Mode = Mode::WGRP.union(Mode::WOTH);

/// Descriptors that whoever started this process left open are for it alone from here on, and what it makes can be written by
/// its owner alone. To be called before anything is opened. The descriptors, under other numbers: one may hold a lock. Where the
/// system does not let that be done, as in some containers, they stay as they are.
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
            // the other number is not inherited; this one is given up
            let held = pidfd_getfd(&me, number, PidfdGetfdFlags::empty()).ok()?;
            nix::unistd::close(number).ok()?;
            Some(held)
        })
        .collect()
}

/// Everything that this program opens itself is closed when another one takes its place.
fn is_inheritable(number: i32) -> bool {
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
    let flags = about.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & CLOSE_ON_EXEC == 0)
}

/// Signals that whoever started this process had it ignore, of those that a child must be able to get: one that is ignored stays
/// so in every program it becomes.
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
