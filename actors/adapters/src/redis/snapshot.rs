//! Whether the data of a stopped Redis is older than the data of a replica: if it started from older data as a master, the replica
//! would drop the data that only the replica has.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use interrex_events::Address;

use super::{
    config_file::ConfigFile,
    info::{Replication, field},
};

/// The most auxiliary fields that are read: more than any version writes.
const MOST_FIELDS: usize = 64;
/// The longest field that is read: longer than any real one.
const LONGEST: usize = 4_096;

/// The data with which a stopped Redis would start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OnDisk {
    /// No data: it would start empty.
    Nothing,
    /// An append-only file: every change up to its end.
    Log,
    /// A snapshot.
    Snapshot(Snapshot),
}

/// The header of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// When the snapshot was begun, in seconds since 1970.
    taken: Option<i64>,
    /// The replication history; nothing if there was no replica.
    history: Option<String>,
    /// The offset in that history.
    offset: Option<u64>,
}

impl OnDisk {
    pub(crate) fn look(config: &ConfigFile) -> io::Result<Self> {
        let data = config.data_folder();
        if config.appends() {
            // since 7.0 it is a folder, before one file
            let log = data.join(config.value("appenddirname").unwrap_or("appendonlydir"));
            let file = data.join(config.value("appendfilename").unwrap_or("appendonly.aof"));
            let is_there =
                std::fs::read_dir(log).is_ok_and(|mut files| files.next().is_some()) || file.is_file();
            return Ok(if is_there { Self::Log } else { Self::Nothing });
        }
        match File::open(data.join(config.value("dbfilename").unwrap_or("dump.rdb"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Nothing),
            file => Ok(Self::Snapshot(Snapshot::read(BufReader::new(file?))?)),
        }
    }

    /// Why a replica has data that this disk lacks, as far as that can be known; `now` in seconds since 1970.
    pub(crate) fn lacks_what_it_holds(&self, replica: &Held, now: i64) -> Option<String> {
        if replica.replication.master || !replica.has_keys {
            return None;
        }
        match self {
            Self::Log => None,
            Self::Nothing => Some("there is no data on its disk".to_owned()),
            Self::Snapshot(snapshot) => snapshot.is_older_than(&replica.replication, now),
        }
    }
}

/// What a replica has.
pub(crate) struct Held {
    replication: Replication,
    has_keys: bool,
}

impl Held {
    /// From `INFO replication` and `INFO keyspace`.
    pub(crate) fn read(replication: &str, keyspace: &str) -> Self {
        let has_keys = (0..).take(16).any(|number| field(keyspace, &format!("db{number}")).is_some());
        Self { replication: Replication::read(replication), has_keys }
    }
}

impl Snapshot {
    /// Reads the fields at the beginning of a snapshot.
    fn read(mut file: impl Read) -> io::Result<Self> {
        let mut head = [0; 9];
        file.read_exact(&mut head)?;
        if !head.starts_with(b"REDIS") {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is not a snapshot of Redis"));
        }
        let mut snapshot = Self::default();
        for _ in 0..MOST_FIELDS {
            if byte(&mut file)? != 0xFA {
                break;
            }
            let (name, value) = (text(&mut file)?, text(&mut file)?);
            match name.as_deref() {
                Some("ctime") => snapshot.taken = value.and_then(|value| value.parse().ok()),
                Some("repl-id") => snapshot.history = value,
                Some("repl-offset") => snapshot.offset = value.and_then(|value| value.parse().ok()),
                _ => {}
            }
        }
        Ok(snapshot)
    }

    fn is_older_than(&self, replica: &Replication, now: i64) -> Option<String> {
        if let (Some(history), Some(offset), Some(held)) = (&self.history, self.offset, replica.offset)
            && replica.histories.contains(history)
        {
            return (offset < held).then(|| {
                format!("its snapshot ends at offset {offset}, but the replica has all data up to {held}")
            });
        }
        // in another history: the replica has no newer data if it heard from no master after the snapshot was begun
        let heard_last = now.saturating_sub_unsigned(replica.unlinked_for.unwrap_or_default());
        let taken = self.taken.unwrap_or_default();
        (taken < heard_last).then(|| {
            format!(
                "its snapshot is {} s older than the replica's last contact with a master",
                heard_last - taken
            )
        })
    }
}

fn byte(file: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    file.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn bytes<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A string of a snapshot; nothing for a compressed string.
fn text(file: &mut impl Read) -> io::Result<Option<String>> {
    let first = byte(file)?;
    let number = match first {
        0xC0 => Some(i32::from(i8::from_le_bytes(bytes(file)?))),
        0xC1 => Some(i32::from(i16::from_le_bytes(bytes(file)?))),
        0xC2 => Some(i32::from_le_bytes(bytes(file)?)),
        _ => None,
    };
    if let Some(number) = number {
        return Ok(Some(number.to_string()));
    }
    let is_compressed = first == 0xC3;
    let length = if is_compressed {
        let first = byte(file)?;
        let length = length(first, file)?;
        let second = byte(file)?;
        self::length(second, file)?;
        length
    } else {
        length(first, file)?
    };
    let mut text = vec![0; length];
    file.read_exact(&mut text)?;
    Ok((!is_compressed).then(|| String::from_utf8_lossy(&text).into_owned()))
}

fn length(first: u8, file: &mut impl Read) -> io::Result<usize> {
    let length = match first >> 6 {
        0 => usize::from(first & 0x3F),
        1 => usize::from(first & 0x3F) << 8 | usize::from(byte(file)?),
        _ if first == 0x80 => usize::try_from(u32::from_be_bytes(bytes(file)?)).unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a field of the snapshot is too long"));
    }
    Ok(length)
}

/// The message for the operator: why Redis is not started, and what to do.
pub(crate) fn refusal(config_file: &Path, address: &Address, why: &str) -> String {
    format!(
        "Redis is not started as a master: {why} ({address}). A master that starts from older data empties its replica. To keep \
         the replica's data: run redis-cli SAVE there, copy its dump.rdb over the file here, and restart this supervisor. To keep \
         the data here, start Redis by hand: redis-server {} --daemonize yes",
        config_file.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes of a snapshot that Redis 7.0.15 wrote.
    fn example() -> Vec<u8> {
        let mut bytes = b"REDIS0010\xfa\x09redis-ver\x067.0.15\xfa\x0aredis-bits\xc0\x40".to_vec();
        bytes.extend(b"\xfa\x05ctime\xc2\xfe\x8c\x0d\x6b\xfa\x08used-mem\xc2\x00\xb3\x3f\x00");
        bytes.extend(b"\xfa\x0erepl-stream-db\xc0\x00\xfa\x07repl-id\x28");
        bytes.extend(b"193b8e22970ee96dd268869685409c7e7af5717b");
        bytes.extend(b"\xfa\x0brepl-offset\xc2\xa3\x2c\x0e\x00\xfa\x08aof-base\xc0\x00\xfe\x00\xfb\x80");
        bytes
    }

    #[test]
    fn the_fields_of_a_snapshot_are_read() {
        let history = Some("193b8e22970ee96dd268869685409c7e7af5717b".to_owned());
        let snapshot = Snapshot { taken: Some(1_796_050_174), history, offset: Some(928_931) };
        assert_eq!(Snapshot::read(&example()[..]).unwrap(), snapshot);
        for cut in 0..example().len() - 4 {
            assert!(Snapshot::read(&example()[..cut]).is_err(), "cut off after {cut} bytes");
        }
        assert!(Snapshot::read(&b"NOREDIS00\xfa"[..]).is_err());
        assert!(Snapshot::read(&b"REDIS0010\xfa\x80\xff\xff\xff\xff"[..]).is_err(), "it would take 4 GB");
    }

    #[test]
    fn what_is_on_the_disk_is_older_than_a_replica_by_offset_or_else_by_time() {
        let now = 2_000;
        let held = |more: &str, keyspace: &str| {
            let info =
                format!("role:slave\nslave_repl_offset:500\nmaster_replid:aa\nmaster_replid2:bb\n{more}");
            Held::read(&info, keyspace)
        };
        let keys = "# Keyspace\r\ndb3:keys=1,expires=0,avg_ttl=0\r\n";
        let snapshot = |history: &str, offset, taken| {
            OnDisk::Snapshot(Snapshot {
                taken: Some(taken),
                history: Some(history.to_owned()),
                offset: Some(offset),
            })
        };
        let is_older = |disk: &OnDisk, more: &str| disk.lacks_what_it_holds(&held(more, keys), now).is_some();
        // the same history: its offset decides, whatever the clocks say
        assert!(is_older(&snapshot("aa", 499, 1_999), ""));
        assert!(!is_older(&snapshot("aa", 500, 1_000), ""));
        assert!(is_older(&snapshot("bb", 499, 1_999), ""), "the replica went on in another one");
        // another history: the replica has heard nothing since its link went down
        assert!(is_older(&snapshot("cc", 900, 1_899), "master_link_down_since_seconds:100\n"));
        assert!(!is_older(&snapshot("cc", 1, 1_900), "master_link_down_since_seconds:100\n"));
        assert!(is_older(&snapshot("cc", 900, 1_999), "master_link_status:up\n"), "it hears a master now");
        // a log has all of it, nothing has nothing; and who has no key, or is a master, loses none
        assert!(!is_older(&OnDisk::Log, "") && is_older(&OnDisk::Nothing, ""));
        assert_eq!(OnDisk::Nothing.lacks_what_it_holds(&held("", "# Keyspace\r\n"), now), None);
        assert_eq!(OnDisk::Nothing.lacks_what_it_holds(&Held::read("role:master\n", keys), now), None);
    }
}
