//! `postgresql.auto.conf`, which PostgreSQL reads after every other configuration file: its last line for a setting counts.
//!
//! Read as bytes, because values may have any encoding; lines of others are not changed.

use std::{io, path::Path};

use super::files::{self, named};
use crate::runtime::RunAs;

/// Its name in a data directory.
pub(super) const NAME: &str = "postgresql.auto.conf";

/// A setting's name, and its value without quotation marks.
pub(super) type Setting<'a> = (&'a str, &'a str);

/// Writes these settings, and removes the settings in `gone`. Durably; nothing is written if nothing changes.
pub(super) fn change(
    data_dir: &Path,
    gone: &[&str],
    settings: &[Setting<'_>],
    owner: RunAs,
) -> io::Result<()> {
    let before = read(data_dir, owner)?;
    let after = with(&before, gone, settings);
    if after == before { Ok(()) } else { files::write(&data_dir.join(NAME), &after, owner) }
}

/// The content of the file, read with the rights of its user; empty if there is no file.
pub(super) fn read(data_dir: &Path, user: RunAs) -> io::Result<Vec<u8>> {
    let file = data_dir.join(NAME);
    match files::read(&file, user) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(named(&file)),
    }
}

/// The old content, and these settings at its end.
fn with(before: &[u8], gone: &[&str], settings: &[Setting<'_>]) -> Vec<u8> {
    let is_replaced = |line: &[u8]| {
        let name = name_in(line);
        let names = gone.iter().copied().chain(settings.iter().map(|(name, _)| *name));
        names.into_iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
    };
    let mut after: Vec<u8> = before
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| !is_replaced(line))
        .flatten()
        .copied()
        .collect();
    if after.last().is_some_and(|last| *last != b'\n') {
        after.push(b'\n');
    }
    for (name, value) in settings {
        let quoted = value.replace('\\', r"\\").replace('\'', "''");
        after.extend_from_slice(format!("{name} = '{quoted}'\n").as_bytes());
    }
    after
}

/// The name of the setting in a line. A value never continues in the next line.
fn name_in(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii_start();
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.$".contains(byte) || !byte.is_ascii();
    line.split(|byte| !is_part(byte)).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE: [&str; 2] = ["recovery_target_time", "synchronous_standby_names"];

    #[test]
    fn a_setting_is_replaced_and_everything_else_stays() {
        let before =
            b"# by hand\nwork_mem = '8MB'\nPrimary_Conninfo='host=old'\nsynchronous_standby_names = 'two'\n \
                       recovery_target_time 'yesterday'";
        let settings = [("primary_conninfo", r"host=new password='it\'s'"), ("recovery_target", "")];
        let once = with(before, &GONE, &settings);
        assert_eq!(
            String::from_utf8_lossy(&once),
            "# by hand\nwork_mem = '8MB'\nprimary_conninfo = 'host=new password=''it\\\\''s'''\nrecovery_target = ''\n"
        );
        assert_eq!(with(&once, &GONE, &settings), once, "can be repeated");
    }

    #[test]
    fn bytes_of_any_encoding_stay_as_they_are() {
        let before = b"cluster_name = 'Z\xfcrich'\r\n\xe9t\xe9.name = 1\nrecovery_target_time\xe9 = 'x'";
        let after = with(before, &GONE, &[("recovery_target", "")]);
        assert_eq!(after, [before.as_slice(), b"\nrecovery_target = ''\n"].concat());
        assert_eq!(with(b"", &GONE, &[]), b"");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(NAME)).unwrap();
        let error = change(folder.path(), &GONE, &[], RunAs::Myself).unwrap_err().to_string();
        assert!(error.contains(NAME), "{error}");
    }
}
