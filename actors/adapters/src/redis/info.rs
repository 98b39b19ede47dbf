//! Parses what Redis reports about itself.

use std::net::IpAddr;

/// A line of `INFO`.
pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The content of `INFO replication`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Replication {
    /// Whether it is a master.
    pub(crate) master: bool,
    /// Whether it is a replica that has all of its master's data and receives changes.
    pub(crate) linked: bool,
    /// Whether a full copy of its master's data is under way.
    pub(crate) copying: bool,
    /// Its replication offset, in bytes.
    pub(crate) offset: Option<u64>,
    /// For a replica: host and port of its master.
    pub(crate) upstream: Option<(String, u16)>,
    /// For a master: its replicas.
    pub(crate) replicas: Vec<Replica>,
    /// Whether a `FAILOVER` to a replica is under way.
    pub(crate) changes_places: bool,
    /// The replication history of its offset, and the history before.
    pub(crate) histories: Vec<String>,
    /// For a replica without a link: for how many seconds.
    pub(crate) unlinked_for: Option<u64>,
}

/// A replica as its master knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replica {
    /// Its address, or the host that it announces, in the spelling that `FAILOVER TO` accepts.
    pub(crate) host: String,
    /// The port it listens on.
    pub(crate) port: u16,
    /// Whether it receives the stream of changes.
    pub(crate) online: bool,
}

impl Replication {
    pub(crate) fn read(info: &str) -> Self {
        let master = field(info, "role") == Some("master");
        let is = |name: &str, value: &str| field(info, name) == Some(value);
        // a copy under way is not complete: a promotion would lose everything (Redis hazards 5)
        let linked = is("master_link_status", "up") && is("master_sync_in_progress", "0");
        let number = |name: &str| field(info, name)?.parse().ok();
        let host = field(info, "master_host").filter(|_| !master);
        let upstream =
            host.and_then(|host| Some((host.to_owned(), field(info, "master_port")?.parse().ok()?)));
        let histories = ["master_replid", "master_replid2"].into_iter().filter_map(|name| field(info, name));
        Self {
            master,
            linked,
            copying: is("master_sync_in_progress", "1"),
            offset: number(if master { "master_repl_offset" } else { "slave_repl_offset" }),
            upstream,
            replicas: info.lines().filter_map(replica).collect(),
            changes_places: field(info, "master_failover_state").is_some_and(|state| state != "no-failover"),
            histories: histories.filter(|id| !is_no_history(id)).map(str::to_owned).collect(),
            unlinked_for: number("master_link_down_since_seconds"),
        }
    }

    /// The replica at an address, as this master spells it: Redis compares spellings, and does not resolve names.
    pub(crate) fn replica_at(&self, host: &str, addresses: &[IpAddr], port: u16) -> Result<&Replica, String> {
        let is_there = |replica: &&Replica| {
            let address = replica.host.parse::<IpAddr>().map(|address| address.to_canonical());
            replica.port == port
                && (replica.host.eq_ignore_ascii_case(host)
                    || address.is_ok_and(|address| addresses.contains(&address)))
        };
        // with address translation, the only replica on that port is meant
        let mut on_port = self.replicas.iter().filter(|replica| replica.port == port);
        let only = on_port.next().filter(|_| on_port.next().is_none());
        self.replicas.iter().find(is_there).or(only).ok_or_else(|| {
            let known: Vec<String> = self
                .replicas
                .iter()
                .map(|replica| format!("{} port {}", replica.host, replica.port))
                .collect();
            match known.is_empty() {
                true => "it has no replica".to_owned(),
                false => format!("its replicas are {}", known.join(", ")),
            }
        })
    }
}

fn is_no_history(id: &str) -> bool {
    id.bytes().all(|byte| byte == b'0')
}

/// `slave0:ip=127.0.0.1,port=6380,state=online,offset=42,lag=0`
fn replica(line: &str) -> Option<Replica> {
    let (name, values) = line.trim().split_once(':')?;
    name.strip_prefix("slave").filter(|number| number.parse::<u32>().is_ok())?;
    let value = |name: &str| values.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    Some(Replica {
        host: value("ip")?.to_owned(),
        port: value("port")?.parse().ok()?,
        online: value("state") == Some("online"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_still_copies_is_not_linked() {
        let info = |sync: u8| {
            format!(
                "role:slave\r\nmaster_host:db.example\r\nmaster_port:6379\r\nmaster_link_status:up\r\n\
                 master_sync_in_progress:{sync}\r\nslave_repl_offset:42\r\nmaster_replid:ab\r\nmaster_replid2:0000\r\n"
            )
        };
        assert!(!Replication::read(&info(1)).linked && Replication::read(&info(1)).copying);
        let state = Replication::read(&info(0));
        assert!(state.linked && !state.master);
        assert_eq!((state.offset, state.upstream), (Some(42), Some(("db.example".to_owned(), 6379))));
        assert_eq!(state.histories, ["ab"]);
    }

    #[test]
    fn a_replica_is_found_by_name_address_or_port_and_told_in_its_masters_spelling() {
        let master = Replication::read(
            "role:master\nconnected_slaves:3\nslave0:ip=10.0.0.2,port=6379,state=online,offset=1,lag=0\n\
             slave1:ip=::ffff:10.0.0.3,port=6379,state=wait_bgsave,offset=0,lag=0\n\
             slave2:ip=announced.example,port=6380,state=online,offset=1,lag=0\nmaster_failover_state:no-failover\n",
        );
        let at = |host: &str, addresses: &[&str], port: u16| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
            master.replica_at(host, &addresses, port).map(|replica| replica.host.as_str())
        };
        assert_eq!(at("beta.example", &["10.0.0.2"], 6379), Ok("10.0.0.2"));
        assert_eq!(at("gamma.example", &["10.0.0.3"], 6379), Ok("::ffff:10.0.0.3"));
        assert_eq!(at("Announced.example", &[], 6380), Ok("announced.example"));
        assert_eq!(at("192.0.2.1", &["192.0.2.1"], 6380), Ok("announced.example"), "behind a translation");
        let unknown = at("delta.example", &["10.0.0.4"], 6379).unwrap_err();
        assert!(unknown.contains("10.0.0.2 port 6379"), "{unknown}");
        assert!(!master.changes_places && !master.replicas[1].online);
        assert!(Replication::default().replica_at("a", &[], 1).unwrap_err().contains("no replica"));
    }
}
