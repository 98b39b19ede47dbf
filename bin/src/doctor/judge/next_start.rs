//! Whether PostgreSQL here would start, and as the server that Interrex expects: a run starts it while clients wait.

use std::{net::IpAddr, path::Path};

use interrex_adapters::postgres::config_file::is_same;

use crate::doctor::{
    facts::{Facts, NextStart},
    finding::{ALL_ACTS, Check, Finding, Judgement, Subject},
};

const WOULD_START: Check = Check {
    name: "would_start",
    subject: Subject::Machine,
    breaks: ALL_ACTS,
    looks_at: "PostgreSQL here would start with exactly the arguments of the supervisor: `postgres -C` accepts its files, and its \
               user can read the files for logins and TLS",
    why: "A run stops PostgreSQL and starts it again: an error in its files shows only then, while clients wait.",
};
const AS_CONFIGURED: Check = Check {
    name: "starts_as_configured",
    subject: Subject::Machine,
    breaks: ALL_ACTS,
    looks_at: "at its next start PostgreSQL uses the data directory, the port and an address that are configured here, and the \
               files that it runs with now",
    why: "A server that comes back on another port or address runs, but no client reaches it.",
};

pub(super) const CHECKS: &[&Check] = &[&WOULD_START, &AS_CONFIGURED];

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let next = &facts.machine.next_start;
    let mut findings = vec![WOULD_START.judge(facts.here, next, would_start)];
    if let Ok(Ok(next)) = next {
        findings.push(AS_CONFIGURED.on(facts.here, as_configured(next, facts)));
    }
    findings
}

fn would_start(found: &Result<NextStart, String>) -> Judgement {
    match found {
        Err(words) => Judgement::fail(
            words,
            "correct that file; if it is the wrong file, set postgres.config_file: see interrex config check",
        ),
        Ok(next) => Judgement::pass_or_fail(
            next.unreadable.is_empty(),
            if next.unreadable.is_empty() {
                format!("with {}", next.config_file)
            } else {
                next.unreadable.join("; ")
            },
            "let the user that PostgreSQL runs as read the file: use chown or chmod, or change that user's groups",
        ),
    }
}

fn as_configured(next: &NextStart, facts: &Facts) -> Judgement {
    let configured = &facts.machine.configured;
    let file = &next.config_file;
    if !is_same(Path::new(&next.data_directory), &configured.data_dir) {
        return Judgement::fail(
            format!("data_directory would be {}, not {}", next.data_directory, configured.data_dir.display()),
            format!("set data_directory in {file}, or postgres.data_dir"),
        );
    }
    if next.port != configured.port.to_string() {
        return Judgement::fail(
            format!("the port would be {}, not {}", next.port, configured.port),
            format!("set port = {} in {file}, or postgres.port", configured.port),
        );
    }
    if let Some(words) = unreached(&next.listen_addresses, &configured.host, &configured.address) {
        return Judgement::fail(
            words,
            format!("set listen_addresses in {file}, such as '*' or 'localhost, {}'", configured.address),
        );
    }
    let running = facts.server(facts.here);
    for (name, then) in [("config_file", &next.config_file), ("hba_file", &next.hba_file)] {
        let now = running.map(|server| server.setting(name)).filter(|now| !now.is_empty());
        if let Some(now) = now.filter(|now| !is_same(Path::new(now), Path::new(then))) {
            return Judgement::warn(
                format!("PostgreSQL runs with {name} {now}, and would start with {then}"),
                "set postgres.config_file to the file that PostgreSQL must use: see interrex config check",
            );
        }
    }
    Judgement::pass(format!("port {}, {}", next.port, next.listen_addresses))
}

/// Why a server that listens on these addresses cannot be reached from here or from other nodes.
fn unreached(listen_addresses: &str, host: &str, address: &str) -> Option<String> {
    if !host.starts_with('/') && !reaches(listen_addresses, host) {
        return Some(format!(
            "listen_addresses would be '{listen_addresses}', but the supervisor connects to {host} (postgres.host)"
        ));
    }
    (!reaches(listen_addresses, address)).then(|| {
        format!("listen_addresses would be '{listen_addresses}', but the other nodes connect to {address} (node.address)")
    })
}

/// Whether a server that listens on these addresses is reached at a host. A name other than `localhost` is not resolved here: it
/// is assumed to be right.
fn reaches(listen_addresses: &str, host: &str) -> bool {
    let mut listens = listen_addresses.split(',').map(str::trim).filter(|it| !it.is_empty());
    listens.any(|it| match (it.parse::<IpAddr>(), host.parse::<IpAddr>()) {
        _ if it == "*" || it == host => true,
        (Ok(it), Ok(host)) => it == host || (it.is_unspecified() && it.is_ipv4() == host.is_ipv4()),
        (Ok(it), Err(_)) => host != "localhost" || it.is_loopback() || it.is_unspecified(),
        (Err(_), Ok(host)) => it != "localhost" || host.is_loopback(),
        (Err(_), Err(_)) => it != "localhost" && host != "localhost",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Verdict, examples::wrong};

    fn next(change: impl FnOnce(&mut NextStart)) -> Vec<(&'static str, Verdict)> {
        wrong(|facts| {
            if let Ok(Ok(next)) = &mut facts.machine.next_start {
                change(next);
            }
        })
    }

    #[test]
    fn a_server_that_would_not_start_or_would_start_as_another_is_named() {
        assert_eq!(
            wrong(|facts| facts.machine.next_start = Ok(Err("FATAL: no".to_owned()))),
            [("would_start", Verdict::Fail)]
        );
        assert_eq!(
            next(|it| it.unreadable = vec!["ssl_key_file".to_owned()]),
            [("would_start", Verdict::Fail)]
        );
        let differs = [("starts_as_configured", Verdict::Fail)];
        assert_eq!(next(|it| it.data_directory = "/elsewhere".to_owned()), differs);
        assert_eq!(next(|it| it.port = "5433".to_owned()), differs);
        assert_eq!(next(|it| it.listen_addresses = "localhost".to_owned()), differs);
        assert_eq!(next(|it| it.listen_addresses = String::new()), differs);
        assert_eq!(next(|it| it.hba_file = "/other".to_owned()), [("starts_as_configured", Verdict::Warn)]);
    }

    #[test]
    fn an_address_is_reached_where_the_server_listens_on_it_or_everywhere() {
        let reached = |listens: &str, host: &str, address: &str| unreached(listens, host, address).is_none();
        assert!(reached("*", "127.0.0.1", "10.0.0.1"));
        assert!(reached("localhost, 10.0.0.1", "127.0.0.1", "10.0.0.1"));
        assert!(reached("10.0.0.1", "/var/run/postgresql", "10.0.0.1"));
        assert!(reached("127.0.0.1, ::1", "::1", "::1"));
        assert!(reached("localhost, db1", "localhost", "10.0.0.1"), "db1 may be 10.0.0.1");
        assert!(!reached("localhost", "127.0.0.1", "10.0.0.1"));
        assert!(!reached("127.0.0.1", "::1", "127.0.0.1"));
        assert!(!reached("", "127.0.0.1", "127.0.0.1"));
        assert!(!reached("10.0.0.1", "127.0.0.1", "10.0.0.1"), "the supervisor itself would not reach it");
        assert!(!reached("127.0.0.1, 10.0.0.2", "127.0.0.1", "10.0.0.1"));
    }
}
