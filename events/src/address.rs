//! Where a server is reached: `host:port`, read and printed in one place.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A host and a port: `10.0.0.1:5432`, `[fd00::1]:5432` or `db1.example:5432`.
///
/// What is read from a text prints as the same text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// An IPv4 address, an IPv6 address without brackets, a name, or the folder of a socket.
    pub host: String,
    /// 0 where an old record names none: no server listens there.
    pub port: u16,
}

/// A text that is no address, with what is wrong and how it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address: {problem}; {RIGHT_FORM}")]
pub struct NotAnAddress {
    text: String,
    problem: String,
}

const RIGHT_FORM: &str = "write 10.0.0.1:5432, [fd00::1]:5432 or db1.example:5432";

impl Address {
    /// Of a host as [`check_host`] lets it pass, or the folder of a socket.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// An address as an event has it, unchecked: a text that is not an address is shown unchanged, and no connection uses it.
    #[must_use]
    pub fn as_recorded(text: String) -> Self {
        text.parse().unwrap_or(Self { host: text, port: 0 })
    }
}

/// What is wrong with a host, alone, as it is written without a port; an IPv6 address without brackets.
///
/// # Errors
/// It is none.
pub fn check_host(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    if host.contains("://") {
        return Err("it begins with a scheme, which has no place here".to_owned());
    }
    if host.starts_with('[') || host.ends_with(']') {
        return Err("the host has brackets, which belong to an IPv6 address with a port".to_owned());
    }
    if host.contains(':') {
        return match host.parse::<Ipv6Addr>() {
            Ok(_) => Ok(()),
            Err(_) => Err(format!("`{host}` is not an IPv6 address")),
        };
    }
    let stray = |letter: &char| !(letter.is_ascii_alphanumeric() || ['.', '-', '_'].contains(letter));
    if let Some(stray) = host.chars().find(stray) {
        return Err(format!("`{}` does not belong in a host", stray.escape_default()));
    }
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && host.parse::<Ipv4Addr>().is_err() {
        return Err(format!("`{host}` is not an IPv4 address"));
    }
    Ok(())
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let wrong = |problem: String| NotAnAddress { text: text.to_owned(), problem };
        if text.contains("://") {
            return Err(wrong("it begins with a scheme, which has no place here".to_owned()));
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(|| wrong("`]` is missing".to_owned()))?;
                host.parse::<Ipv6Addr>().map_err(|_| wrong(format!("`{host}` is not an IPv6 address")))?;
                (host, port.strip_prefix(':'))
            }
            None => match text.split_once(':') {
                Some((_, rest)) if rest.contains(':') => {
                    return Err(wrong("an IPv6 address needs brackets".to_owned()));
                }
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        check_host(host).map_err(wrong)?;
        let port = port.filter(|port| !port.is_empty()).ok_or_else(|| wrong("the port is missing".into()))?;
        let digits = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
        let port = port.parse().ok().filter(|_| digits);
        let port = port.ok_or_else(|| wrong("the port must be a number from 1 to 65535".to_owned()))?;
        Ok(Self::new(host, port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        match (host.contains(':'), port) {
            (_, 0) => formatter.pad(host),
            (true, _) => formatter.pad(&format!("[{host}]:{port}")),
            (false, _) => formatter.pad(&format!("{host}:{port}")),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::new(address.ip().to_string(), address.port())
    }
}

impl Address {
    /// Whether it means every address of a machine, on which a server may listen and to which no client can connect.
    #[must_use]
    pub fn is_unspecified(host: &str) -> bool {
        host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// As in an event. A configuration is read more strictly, by [`FromStr`].
impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::as_recorded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_reads_and_prints_as_the_same_text() {
        for (text, host, port) in [
            ("10.0.0.1:5432", "10.0.0.1", 5432),
            ("[::1]:1", "::1", 1),
            ("[fd00:0:0::0A]:65535", "fd00:0:0::0A", 65535),
            ("[::ffff:10.0.0.1]:5432", "::ffff:10.0.0.1", 5432),
            ("db-1.example_net:6379", "db-1.example_net", 6379),
            ("3com.example.:80", "3com.example.", 80),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert_eq!(address.to_string(), text);
            assert_eq!(serde_json::to_string(&address).unwrap(), format!("\"{text}\""));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason_and_the_right_form() {
        for (text, reason) in [
            ("", "the host is missing"),
            (":5432", "the host is missing"),
            ("[]:5432", "is not an IPv6 address"),
            ("beta", "the port is missing"),
            ("beta:", "the port is missing"),
            ("[::1]", "the port is missing"),
            ("[::1]5432", "the port is missing"),
            ("beta:0", "from 1 to 65535"),
            ("beta:65536", "from 1 to 65535"),
            ("beta:+5432", "from 1 to 65535"),
            ("beta:05432", "from 1 to 65535"),
            ("beta:5432 ", "from 1 to 65535"),
            ("beta:postgres", "from 1 to 65535"),
            ("::1:5432", "an IPv6 address needs brackets"),
            ("fd00::1", "an IPv6 address needs brackets"),
            ("[::1:5432", "`]` is missing"),
            ("[10.0.0.1]:5432", "is not an IPv6 address"),
            ("[fe80::1%eth0]:5432", "is not an IPv6 address"),
            ("http://beta:7400", "scheme"),
            (" beta:5432", "` ` does not belong in a host"),
            ("be'ta:5432", "does not belong in a host"),
            ("user@beta:5432", "`@` does not belong in a host"),
            ("beta/db:5432", "does not belong in a host"),
            ("10.0.0.300:5432", "is not an IPv4 address"),
            ("10.0.1:5432", "is not an IPv4 address"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(reason) && error.ends_with(RIGHT_FORM), "{text}: {error}");
        }
    }

    #[test]
    fn an_old_record_is_read_whatever_it_says_and_prints_as_it_stood() {
        for text in
            ["", "beta", "::1:5432", "[::1]", "beta:0", "http://beta:7400", "10.0.0.1:5432", "[::1]:5432"]
        {
            let read: Address = serde_json::from_str(&format!("\"{text}\"")).unwrap();
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn a_host_alone_has_neither_brackets_nor_a_port() {
        for host in ["10.0.0.1", "::1", "fd00::1", "beta.example"] {
            assert_eq!(check_host(host), Ok(()), "{host}");
        }
        for host in ["", "[::1]", "beta:5432", "10.0.0.1:5432", "http://beta", "10.0.0.300", "be ta"] {
            assert!(check_host(host).is_err(), "{host}");
        }
    }
}
