//! Copies the folder of a stopped server: several files at a time, without zeros that the file system need not store, and with
//! shared blocks if the file system can share them.
//!
//! In this process, not with `cp`: the copy ends with the process, can be cancelled, reports its progress, and leaves out useless
//! files.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use interrex_actors::{ports::Answer, wire::CopyProgress};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::checksums::Checksums;

/// The most files that are copied at a time: making a file needs a processor, and others need the processors too.
const AT_A_TIME: usize = 4;
/// Bytes that are read at once; a chunk of zeros is left out.
const CHUNK: usize = 128 << 10;
/// How often the progress is reported.
const TELL: Duration = Duration::from_millis(200);

/// The size of a folder's content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// What to copy. Links to folders and files are followed, because they are a part of the data; a dead link is copied as a link;
/// sockets and similar files are left out.
#[derive(Debug, Default)]
pub(super) struct Plan {
    from: PathBuf,
    /// Relative, as all paths here; a folder comes before what is in it.
    folders: Vec<PathBuf>,
    files: Vec<(PathBuf, u64)>,
    dead_links: Vec<PathBuf>,
}

impl Plan {
    /// Everything below a folder that is wanted.
    ///
    /// # Errors
    /// A file or folder cannot be examined.
    pub(super) fn of(from: &Path, is_wanted: impl Fn(&Path) -> bool) -> io::Result<Self> {
        let mut plan = Self { from: from.to_owned(), ..Self::default() };
        let (mut open, mut files) = (vec![PathBuf::new()], Vec::new());
        while let Some(folder) = open.pop() {
            for (place, entry) in fs::read_dir(from.join(&folder))?.enumerate() {
                let path = folder.join(entry?.file_name());
                if !is_wanted(&path) {
                    continue;
                }
                match fs::metadata(from.join(&path)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => plan.dead_links.push(path),
                    Err(error) => return Err(named(&path, &error)),
                    Ok(metadata) if metadata.is_dir() => open.push(path),
                    Ok(metadata) if metadata.is_file() => files.push((place, (path, metadata.len()))),
                    Ok(_) => {}
                }
            }
            plan.folders.push(folder);
        }
        // threads that make files in one folder at the same time wait for each other
        files.sort_by_key(|(place, _)| *place);
        plan.files = files.into_iter().map(|(_, file)| file).collect();
        Ok(plan)
    }

    /// Removes files from the plan.
    pub(super) fn leave_out(&mut self, is_unwanted: impl Fn(&Path) -> bool) {
        self.files.retain(|(path, _)| !is_unwanted(path));
    }

    /// The size, including zeros and shared blocks.
    pub(super) fn size(&self) -> Size {
        Size { files: self.files.len() as u64, bytes: self.files.iter().map(|(_, bytes)| bytes).sum() }
    }

    /// Copies everything into a new folder, and returns the checksums of what was read. The disk need not have the copy yet.
    ///
    /// # Errors
    /// A file cannot be read or written, or the copy was cancelled; then the copy is not complete.
    pub(super) fn copy(&self, into: &Path, progress: &Progress) -> io::Result<Checksums> {
        let sums = self.copy_with(into, true, progress)?;
        Ok(sums.into_iter().filter_map(|(path, sum)| Some((path, sum?))).collect())
    }

    /// The same without checksums. Returns the files for which [`Checksums::of`] may take them while the machine waits for the
    /// disk.
    pub(super) fn copy_only(&self, into: &Path, progress: &Progress) -> io::Result<Vec<PathBuf>> {
        Ok(self.copy_with(into, false, progress)?.into_iter().map(|(path, _)| path).collect())
    }

    /// The files that share no blocks with their copies, each with its checksum if that is wanted.
    fn copy_with(&self, into: &Path, sums: bool, progress: &Progress) -> io::Result<Vec<Copied>> {
        for folder in &self.folders {
            let mode = fs::metadata(self.from.join(folder))?.permissions().mode() & 0o7777;
            let made = DirBuilder::new().mode(mode).create(into.join(folder));
            made.map_err(|error| named(folder, &error))?;
        }
        for link in &self.dead_links {
            symlink(fs::read_link(self.from.join(link))?, into.join(link))?;
        }
        let (next, sharing) = (AtomicUsize::new(0), Sharing::default());
        let work = || {
            let (mut buffer, mut written) = (vec![0; CHUNK], Vec::new());
            while let Some((path, _)) = self.files.get(next.fetch_add(1, Ordering::Relaxed)) {
                let hash = sums.then(Sha256::new);
                let places = (self.from.join(path), into.join(path));
                let copied = copy_file((&places.0, &places.1), (&mut buffer, &sharing), hash, progress);
                let bytes = copied.map_err(|error| {
                    // the copy is useless now: the other threads stop too
                    next.store(self.files.len(), Ordering::Relaxed);
                    named(path, &error)
                })?;
                if let Bytes::Written(sum) = bytes {
                    written.push((path.clone(), sum));
                }
            }
            Ok(written)
        };
        thread::scope(|scope| {
            let at_a_time =
                thread::available_parallelism().map_or(1, |processors| processors.get().min(AT_A_TIME));
            let workers: Vec<_> = (0..at_a_time).map(|_| scope.spawn(work)).collect();
            // wait for all threads, even after an error
            let ended: Vec<io::Result<Vec<_>>> = workers
                .into_iter()
                .map(|worker| {
                    worker.join().unwrap_or_else(|_| Err(io::Error::other("a copying thread died")))
                })
                .collect();
            let written: io::Result<Vec<Vec<_>>> = ended.into_iter().collect();
            Ok(written?.into_iter().flatten().collect())
        })
    }
}

/// A file that was written, and its checksum if wanted.
type Copied = (PathBuf, Option<String>);

/// How a file got its bytes.
enum Bytes {
    Shared,
    Written(Option<String>),
}

/// The volume that is known to share no blocks. It is not asked for each file: that would take as long as the copying.
#[derive(Debug, Default)]
struct Sharing {
    refused_by: AtomicU64,
}

impl Sharing {
    /// Lets a new file share the blocks of another, if their volume can.
    fn share(&self, (source, volume): (&File, u64), copy: &File) -> bool {
        if self.refused_by.load(Ordering::Relaxed) == volume {
            return false;
        }
        let shared = rustix::fs::ioctl_ficlone(copy, source);
        if let Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY) = shared {
            self.refused_by.store(volume, Ordering::Relaxed);
        }
        shared.is_ok()
    }
}

fn copy_file(
    (from, to): (&Path, &Path),
    (buffer, sharing): (&mut [u8], &Sharing),
    hash: Option<Sha256>,
    progress: &Progress,
) -> io::Result<Bytes> {
    progress.go_on()?;
    let mut source = File::open(from)?;
    let metadata = source.metadata()?;
    let mut new = OpenOptions::new();
    let mut copy = new.write(true).create_new(true).mode(metadata.permissions().mode()).open(to)?;
    let bytes = if sharing.share((&source, metadata.dev()), &copy) {
        progress.done.fetch_add(metadata.len(), Ordering::Relaxed);
        Bytes::Shared
    } else {
        let sum = copy_bytes((&mut source, &mut copy), buffer, hash, progress)?;
        Bytes::Written(sum)
    };
    copy.set_modified(metadata.modified()?)?;
    Ok(bytes)
}

fn copy_bytes(
    (source, copy): (&mut File, &mut File),
    buffer: &mut [u8],
    mut hash: Option<Sha256>,
    progress: &Progress,
) -> io::Result<Option<String>> {
    let (mut length, mut ends_with_zeros) = (0, false);
    loop {
        progress.go_on()?;
        let read = match source.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let bytes = &buffer[..read];
        if bytes.is_empty() {
            if ends_with_zeros {
                // the zeros at the end were only skipped
                copy.set_len(length)?;
            }
            return Ok(hash.map(|hash| hex::encode(hash.finalize())));
        }
        if let Some(hash) = &mut hash {
            hash.update(bytes);
        }
        ends_with_zeros = bytes.iter().all(|byte| *byte == 0);
        if ends_with_zeros {
            copy.seek(SeekFrom::Current(i64::try_from(read).map_err(io::Error::other)?))?;
        } else {
            copy.write_all(bytes)?;
        }
        length += read as u64;
        progress.done.fetch_add(read as u64, Ordering::Relaxed);
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The progress of a copy.
#[derive(Debug, Default)]
pub(super) struct Progress {
    done: AtomicU64,
    given_up: AtomicBool,
}

impl Progress {
    /// # Errors
    /// The copy was cancelled.
    pub(super) fn go_on(&self) -> io::Result<()> {
        if self.given_up.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "given up"));
        }
        Ok(())
    }
}

/// Cancels a copy when it is dropped: its threads end soon after.
struct GiveUp(Arc<Progress>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.given_up.store(true, Ordering::Relaxed);
    }
}

/// Waits for threads that copy `total_bytes`, and reports their progress. When this future is dropped, the copy is cancelled.
///
/// # Errors
/// An error of the copy.
pub(super) async fn watch<T>(
    total_bytes: u64,
    told: &dyn Fn(CopyProgress),
    copying: impl AsyncFnOnce(Arc<Progress>) -> Answer<T>,
) -> Answer<T> {
    let watched = GiveUp(Arc::default());
    let mut copying = std::pin::pin!(copying(watched.0.clone()));
    loop {
        tokio::select! {
            ended = &mut copying => return ended,
            () = tokio::time::sleep(TELL) => {
                told(CopyProgress { done_bytes: watched.0.done.load(Ordering::Relaxed), total_bytes });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::checksums::{self, CHECKSUMS, Checked};

    fn write(path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_copy_has_the_same_content_and_less_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let (from, into) = (folder.path().join("from"), folder.path().join("into"));
        let segment = [vec![7; 3 * CHUNK / 2], vec![0; 40 * CHUNK]].concat();
        write(&from.join("base/1/16384"), &segment);
        write(&from.join("base/1/empty"), b"");
        write(&from.join("base/pgsql_tmp/1"), b"of no use");
        write(&folder.path().join("elsewhere/log"), b"through a link");
        symlink("../elsewhere", from.join("pg_wal")).unwrap();
        symlink("nowhere", from.join("dead")).unwrap();
        fs::set_permissions(from.join("base/1"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(from.join("base/1/empty"), fs::Permissions::from_mode(0o640)).unwrap();

        let plan = Plan::of(&from, |path| !path.ends_with("pgsql_tmp")).unwrap();
        assert_eq!(plan.size(), Size { files: 3, bytes: segment.len() as u64 + 14 });
        let progress = Progress::default();
        let sums = plan.copy(&into, &progress).unwrap();

        assert_eq!(progress.done.load(Ordering::Relaxed), plan.size().bytes);
        let lines = sums.lines(Path::new("into"));
        let twin = folder.path().join("twin");
        let later = Checksums::of(&twin, plan.copy_only(&twin, &progress).unwrap()).unwrap();
        assert_eq!(later, sums);
        progress.done.fetch_sub(plan.size().bytes, Ordering::Relaxed);
        // none where the file system shares blocks
        fs::write(folder.path().join(CHECKSUMS), lines.clone().unwrap_or_default()).unwrap();
        let sound = lines.map_or(0, |_| plan.size().files);
        let damaged = Vec::new();
        assert_eq!(checksums::check(folder.path()).unwrap(), Some(Checked { sound, damaged }));
        assert_eq!(fs::read(into.join("base/1/16384")).unwrap(), segment);
        assert_eq!(fs::read(into.join("pg_wal/log")).unwrap(), b"through a link");
        assert_eq!(fs::read_link(into.join("dead")).unwrap(), Path::new("nowhere"));
        assert!(!into.join("base/pgsql_tmp").exists());
        let of = |path: &str| fs::metadata(into.join(path)).unwrap();
        assert_eq!(of("base/1").mode() & 0o777, 0o700);
        assert_eq!((of("base/1/empty").mode() & 0o777, of("base/1/empty").len()), (0o640, 0));
        assert_eq!(
            of("base/1/16384").modified().unwrap(),
            fs::metadata(from.join("base/1/16384")).unwrap().modified().unwrap()
        );
        plan.copy(&into, &progress).unwrap_err();
    }

    #[tokio::test]
    async fn a_copy_that_nobody_waits_for_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let (from, into) = (folder.path().join("from"), folder.path().join("into"));
        write(&from.join("large"), &vec![1; 64 * CHUNK]);
        let plan = Plan::of(&from, |_| true).unwrap();
        let (ended, end) = tokio::sync::oneshot::channel();
        let waiting = watch(1, &|_| {}, async move |progress| {
            thread::spawn(move || {
                while !progress.given_up.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
                ended.send(plan.copy(&into, &progress).map(drop).map_err(|error| error.to_string()))
            });
            std::future::pending::<Answer<()>>().await
        });
        tokio::time::timeout(Duration::from_millis(1), waiting).await.unwrap_err();
        assert_eq!(end.await.unwrap(), Err("large: given up".to_owned()));
    }
}
