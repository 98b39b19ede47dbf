//! The folder of kept copies: their names, how a copy gets its name, and which copies are removed.
//!
//! A copy is a folder `<time>-<system identifier>-tl<timeline>` with `pgdata`, `SHA256SUMS` and `manifest.json`. While it is made
//! its name ends with `.unfinished`; such a folder without a manifest was given up, and is removed.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use sha2::{Digest as _, Sha256};

use super::{Kept, KeptBy, KeptManifest, log_folder};
use crate::{
    checksums::{CHECKSUMS, Checksums},
    guarded::{self, remove},
    postgres::files::{self, beside},
    runtime::RunAs,
};

const UNFINISHED: &str = "unfinished";
const MANIFEST: &str = "manifest.json";
/// Next to the manifest, once `interrex salvage` has written all stranded rows of the copy.
const SALVAGED: &str = "salvaged.json";

/// Makes the folder of all kept copies. Only the servers' user may enter it, because it has all of their data.
pub(super) fn make(into: &Path, owner: RunAs) -> io::Result<()> {
    let missing: Vec<&Path> =
        into.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()).collect();
    missing.into_iter().rev().try_for_each(|folder| guarded::create_folder(folder, owner))
}

/// The place of a copy that is being made.
pub(super) fn unfinished(folder: &Path) -> PathBuf {
    beside(folder, UNFINISHED)
}

/// An empty place for a copy to be made.
pub(super) fn begin(folder: &Path, owner: RunAs) -> io::Result<PathBuf> {
    let place = unfinished(folder);
    remove(&place)?;
    guarded::create_folder(&place, owner)?;
    // a hint that many file systems do not support
    let _ = owner.act(|| make_top_of_its_own(&place));
    Ok(place)
}

/// Lets ext4 place the content of a folder where it has most space. Next to another cluster's files, ext4 checks for every new file
/// each file that was removed there within the last minutes (ADR 13).
fn make_top_of_its_own(folder: &Path) -> io::Result<()> {
    let folder = File::open(folder)?;
    let flags = ioctl_getflags(&folder)?;
    Ok(ioctl_setflags(&folder, flags | IFlags::TOPDIR)?)
}

/// Writes the manifest and the checksums of a copy, durably.
pub(super) fn describe(
    place: &Path,
    mut manifest: KeptManifest,
    sums: &Checksums,
    owner: RunAs,
) -> io::Result<()> {
    if let Some(lines) = sums.lines(Path::new("pgdata")) {
        files::write(&place.join(CHECKSUMS), lines.as_bytes(), owner)?;
        manifest.checksums_sha256 = Some(hex::encode(Sha256::digest(lines)));
    }
    let text = serde_json::to_string_pretty(&manifest)? + "\n";
    files::write(&place.join(MANIFEST), text.as_bytes(), owner)
}

/// Gives a complete copy its name. Can be repeated.
pub(super) fn finish(folder: &Path) -> io::Result<Kept> {
    let place = unfinished(folder);
    if place.exists() {
        guarded::rename(&place, folder)?;
    }
    read(folder)
}

/// The name of a copy.
pub(super) fn name(manifest: &KeptManifest) -> String {
    let ending = match manifest.kept_by {
        KeptBy::Copy => "",
        KeptBy::Rename => "-replaced",
    };
    let time = manifest.kept_at.format("%Y%m%dT%H%M%S%3fZ");
    format!("{time}-{}-tl{}{ending}", manifest.system_id, manifest.timeline.0)
}

fn read(folder: &Path) -> io::Result<Kept> {
    let text = fs::read(folder.join(MANIFEST))?;
    Ok(Kept { folder: folder.to_owned(), manifest: serde_json::from_slice(&text)? })
}

/// All complete copies, the newest first.
pub(super) fn all(into: &Path) -> io::Result<Vec<Kept>> {
    let mut all: Vec<Kept> = folders(into)?
        .into_iter()
        .filter(|folder| !is_unfinished(folder))
        .filter_map(|folder| read(&folder).ok())
        // a folder that a person renamed or copied belongs to that person
        .filter(|kept| kept.folder.file_name().is_some_and(|own| own == name(&kept.manifest).as_str()))
        .collect();
    all.sort_by_key(|kept| std::cmp::Reverse(kept.manifest.kept_at));
    Ok(all)
}

/// Removes copies that were given up.
pub(super) fn remove_given_up(into: &Path) -> io::Result<()> {
    let given_up = |folder: &PathBuf| is_unfinished(folder) && !folder.join(MANIFEST).exists();
    folders(into)?.iter().filter(|folder| given_up(folder)).try_for_each(|folder| remove(folder))
}

/// Removes all copies but the own copy, because clocks may be wrong, and the newest. Half-rewound copies are removed at any age, so
/// that no useful copy is removed for them. Copies that may have rows that exist nowhere else stay, in any number.
pub(super) fn prune(
    into: &Path,
    newest: usize,
    own: Option<&Path>,
    node: (&Path, RunAs),
) -> io::Result<Vec<PathBuf>> {
    let all = all(into)?.into_iter().map(|kept| (has_nothing_to_lose(&kept), kept)).collect();
    remove_all(into, too_many(all, newest, own), node)
}

/// Removes copies that another folder has too, and useless copies.
pub(super) fn prune_copied(
    into: &Path,
    is_copied: impl Fn(&Kept) -> bool,
    node: (&Path, RunAs),
) -> io::Result<Vec<PathBuf>> {
    let goes = |kept: &Kept| kept.manifest.half_rewound || is_copied(kept);
    remove_all(into, all(into)?.into_iter().filter(goes).collect(), node)
}

/// Needs the node's data directory, whose WAL stays, and the servers' user.
fn remove_all(into: &Path, gone: Vec<Kept>, (in_use, owner): (&Path, RunAs)) -> io::Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for kept in gone {
        // from the first removal on it is no longer a copy
        let place = unfinished(&kept.folder);
        guarded::rename(&kept.folder, &place)?;
        log_folder::remove_kept(&place.join("pgdata"), in_use, owner)?;
        files::remove_file(&place.join(MANIFEST))?;
        remove(&place)?;
        removed.push(kept.folder);
    }
    remove_given_up(into)?;
    Ok(removed)
}

/// The copies to remove, of all copies from the newest to the oldest, each with whether it has nothing to lose. Copies with nothing
/// to lose only take the places that the other copies leave free.
fn too_many(all: Vec<(bool, Kept)>, newest: usize, own: Option<&Path>) -> Vec<Kept> {
    let (own, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(_, kept)| own == Some(kept.folder.as_path()));
    let (gone, of_use): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|(_, kept)| kept.manifest.half_rewound);
    let (harmless, precious): (Vec<_>, Vec<_>) =
        of_use.into_iter().partition(|(has_nothing_to_lose, _)| *has_nothing_to_lose);
    let left = newest.saturating_sub(own.len() + precious.len());
    gone.into_iter().chain(harmless.into_iter().skip(left)).map(|(_, kept)| kept).collect()
}

/// Whether main lacked nothing of it, or the stranded rows were salvaged. Without a count, main may lack some.
fn has_nothing_to_lose(kept: &Kept) -> bool {
    kept.manifest.stranded == Some(0) || kept.folder.join(SALVAGED).is_file()
}

/// The kept copies that may have rows that exist nowhere else, the newest first.
///
/// # Errors
/// The folder cannot be read.
pub fn not_salvaged(into: &Path) -> io::Result<Vec<Kept>> {
    let mut all = all(into)?;
    all.retain(|kept| !kept.manifest.half_rewound && !has_nothing_to_lose(kept));
    Ok(all)
}

/// Notes that all stranded rows of a kept copy were written, and the output folder. Returns whether `pgdata` is a kept copy: a
/// folder with another name, or without a manifest next to it, gets no note.
///
/// # Errors
/// The note cannot be written.
pub fn note_salvaged(pgdata: &Path, output: &Path, at: DateTime<Utc>, owner: RunAs) -> io::Result<bool> {
    let Some(folder) = pgdata.parent().filter(|_| pgdata.ends_with("pgdata")) else { return Ok(false) };
    if read(folder).is_err() {
        return Ok(false);
    }
    let note = serde_json::json!({ "at": at, "output": output });
    // with the rights of the owner, who may have put a link there
    let text = serde_json::to_string_pretty(&note)? + "\n";
    owner.act(|| files::write(&folder.join(SALVAGED), text.as_bytes(), RunAs::Myself))?;
    Ok(true)
}

fn folders(into: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(into) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| entry.map(|entry| entry.path())).collect(),
    }
}

/// Whether a folder has the name of an unfinished copy; other folders are not touched.
fn is_unfinished(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let own = name.strip_suffix(UNFINISHED).and_then(|name| name.strip_suffix('.'));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|letter| letter.is_ascii_digit());
    own.is_some_and(|name| {
        let mut parts = name.split('-');
        parts.next().is_some_and(|time| time.len() == 19 && time.ends_with('Z'))
            && parts.next().is_some_and(digits)
            && parts.next().is_some_and(|timeline| timeline.strip_prefix("tl").is_some_and(digits))
    })
}

#[cfg(test)]
mod tests {
    use interrex_events::TimelineId;

    use super::*;

    fn manifest(second: i64, half_rewound: bool) -> KeptManifest {
        KeptManifest {
            kept_at: DateTime::from_timestamp(second, 0).unwrap(),
            kept_by: if half_rewound { KeptBy::Rename } else { KeptBy::Copy },
            reason: "a test".to_owned(),
            half_rewound,
            system_id: 7,
            timeline: TimelineId(3),
            end: None,
            switchpoint: None,
            stranded: None,
            state: "in production".to_owned(),
            files: 1,
            bytes: 2,
            control_sha256: String::new(),
            log_sha256: String::new(),
            checksums_sha256: None,
        }
    }

    fn keep(into: &Path, manifest: &KeptManifest) -> Kept {
        let folder = into.join(name(manifest));
        let place = begin(&folder, RunAs::Myself).unwrap();
        fs::create_dir(place.join("pgdata")).unwrap();
        describe(&place, manifest.clone(), &Checksums::default(), RunAs::Myself).unwrap();
        let kept = finish(&folder).unwrap();
        assert_eq!(finish(&folder).unwrap(), kept, "can be repeated");
        kept
    }

    fn with(second: i64, stranded: Option<u64>) -> KeptManifest {
        KeptManifest { stranded, ..manifest(second, false) }
    }

    #[test]
    fn the_newest_of_use_stay_and_what_is_not_ours_is_never_touched() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("kept");
        assert_eq!(all(&into).unwrap(), []);
        make(&into, RunAs::Myself).unwrap();
        make(&into, RunAs::Myself).unwrap();
        let kept: Vec<Kept> = (1..=3).map(|second| keep(&into, &with(second, Some(0)))).collect();
        let half = keep(&into, &manifest(4, true));
        assert_eq!(half.folder.file_name().unwrap(), "19700101T000004000Z-7-tl3-replaced");
        let given_up = begin(&into.join(name(&manifest(5, false))), RunAs::Myself).unwrap();
        for name in ["somebody's", "x.unfinished", "a-b-c.unfinished"] {
            fs::create_dir(into.join(name)).unwrap();
        }
        fs::copy(kept[0].folder.join(MANIFEST), into.join("somebody's").join(MANIFEST)).unwrap();

        let removed = prune(&into, 2, None, (Path::new("/"), RunAs::Myself)).unwrap();
        assert_eq!(removed, [half.folder, kept[0].folder.clone()]);
        assert_eq!(all(&into).unwrap(), [kept[2].clone(), kept[1].clone()]);
        assert!(!given_up.exists());
        assert_eq!(fs::read_dir(&into).unwrap().count(), 5, "two of ours and three others");
        assert_eq!(prune(&into, 2, None, (Path::new("/"), RunAs::Myself)).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_may_have_rows_that_are_in_no_other_place_is_never_removed_by_count() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("kept");
        make(&into, RunAs::Myself).unwrap();
        let kept: Vec<PathBuf> = (1..)
            .zip([Some(7), None, Some(0), Some(0), Some(0)])
            .map(|(second, stranded)| keep(&into, &with(second, stranded)).folder)
            .collect();
        // as an older version wrote it
        let unknown = kept[1].join(MANIFEST);
        let text = fs::read_to_string(&unknown).unwrap();
        fs::write(&unknown, text.replace("\"stranded\": null,", "")).unwrap();

        let removed = prune(&into, 2, Some(&kept[4]), (Path::new("/"), RunAs::Myself)).unwrap();
        assert_eq!(removed, [kept[3].clone(), kept[2].clone()], "and its own stays beside the two");
        assert_eq!(prune(&into, 3, None, (Path::new("/"), RunAs::Myself)).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(prune(&into, 0, None, (Path::new("/"), RunAs::Myself)).unwrap(), [kept[4].clone()]);
        let names = |all: Vec<Kept>| all.into_iter().map(|kept| kept.folder).collect::<Vec<_>>();
        assert_eq!(names(not_salvaged(&into).unwrap()), [kept[1].clone(), kept[0].clone()]);

        let (output, at) = (Path::new("/srv/stranded"), DateTime::<Utc>::UNIX_EPOCH);
        let note = |folder: &Path| note_salvaged(&folder.join("pgdata"), output, at, RunAs::Myself).unwrap();
        assert!(!note(&folder.path().join("main")) && note(&kept[1]));
        assert_eq!(names(not_salvaged(&into).unwrap()), [kept[0].clone()]);
        assert_eq!(
            prune(&into, 2, None, (Path::new("/"), RunAs::Myself)).unwrap(),
            Vec::<PathBuf>::new(),
            "there is a place for it"
        );
        assert_eq!(prune(&into, 1, None, (Path::new("/"), RunAs::Myself)).unwrap(), [kept[1].clone()]);
        let is_copied = |copied: &Kept| copied.folder == kept[0];
        assert_eq!(
            prune_copied(&into, is_copied, (Path::new("/"), RunAs::Myself)).unwrap(),
            [kept[0].clone()]
        );
    }
}
