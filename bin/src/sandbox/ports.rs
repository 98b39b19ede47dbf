//! Ports that no other sandbox takes while a sandbox lives, however many are made at the same time.

use std::{
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

use super::SandboxError;

/// Ports below the range from which the kernel picks ports for outgoing connections.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;
/// Ports of one sandbox: four for each of three nodes, and some to put a proxy on.
const BLOCK: u16 = 20;

/// A block of ports, reserved as long as this value lives.
#[derive(Debug)]
pub(super) struct Ports {
    first: u16,
    /// A socket with an abstract name is the lock: it needs no file, any user may ask for it, and the kernel
    /// drops it with the process, however that ends.
    _lock: UnixListener,
}

impl Ports {
    /// Reserves a block. Every process begins to look at another place.
    pub(super) fn reserve() -> Result<Self, SandboxError> {
        let blocks = (LAST - FIRST) / BLOCK;
        let begin = std::process::id() % u32::from(blocks);
        let candidates = (0..blocks).map(|step| (begin + u32::from(step) * 7) % u32::from(blocks));
        candidates
            .filter_map(|block| u16::try_from(block).ok())
            .map(|block| FIRST + block * BLOCK)
            .find_map(Self::take)
            .ok_or_else(|| {
                SandboxError::failed(
                    "looking for free ports",
                    format!("no free ports are left from {FIRST} to {LAST}"),
                )
            })
    }

    fn take(first: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("interrex-sandbox-ports-{first}")).ok()?;
        let lock = UnixListener::bind_addr(&name).ok()?;
        (first..first + BLOCK).all(is_free).then_some(Self { first, _lock: lock })
    }

    /// A port of the block.
    pub(super) fn get(&self, index: u16) -> u16 {
        debug_assert!(index < BLOCK, "a sandbox has {BLOCK} ports");
        self.first + index
    }
}

/// Whether a server could listen there, by TCP and by UDP.
fn is_free(port: u16) -> bool {
    let address = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_sandboxes_share_a_port_and_a_port_in_use_is_left_alone() {
        let [first, second] = [(); 2].map(|()| Ports::reserve().unwrap());
        assert_ne!(first.first, second.first);
        assert!(Ports::take(first.first).is_none(), "the block is reserved");
        let place = second.first;
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, second.get(3))).unwrap();
        drop(second);
        assert!(Ports::take(place).is_none(), "a port of the block is in use");
    }
}
