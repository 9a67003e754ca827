//! Loopback addresses: each task has one of its own, and simulators side by side never share one.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// A UDP port that is bound on every address in use, as a lock that the kernel lets go when its holder dies.
const LOCK_PORT: u16 = 47_447;

/// Gives out addresses.
#[derive(Debug)]
pub(crate) struct Addresses {
    next: AtomicU32,
}

/// An address that is this task's while the value lives.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) address: Ipv4Addr,
    _lock: UdpSocket,
}

impl Addresses {
    /// Starts at a random place of 127.0.0.0/8.
    pub(crate) fn new() -> Self {
        Self { next: AtomicU32::new(rand::random()) }
    }

    /// An address that nobody has and on which all of `ports` are free.
    pub(crate) fn reserve(&self, ports: &[u16]) -> io::Result<Reservation> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..200 {
            let address = candidate(self.next.fetch_add(1, Ordering::Relaxed));
            match try_reserve(address, ports) {
                Ok(lock) => return Ok(Reservation { address, _lock: lock }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

fn try_reserve(address: Ipv4Addr, ports: &[u16]) -> io::Result<UdpSocket> {
    let lock = UdpSocket::bind(SocketAddrV4::new(address, LOCK_PORT))?;
    for port in ports {
        // Bound only to see that it can be; the task's process is the one to listen.
        TcpListener::bind(SocketAddrV4::new(address, *port))?;
    }
    Ok(lock)
}

/// Never in 127.0.0.0/16, where everything else on a machine listens, and never ending in 0 or 255.
fn candidate(number: u32) -> Ipv4Addr {
    let within = |divisor: u32, size: u32, first: u32| (number / divisor % size + first) as u8;
    Ipv4Addr::new(127, within(254 * 256, 254, 1), within(254, 256, 0), within(1, 254, 1))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::{Addresses, candidate};

    #[test]
    fn candidates_are_in_bounds() {
        for number in [0, 1, 253, 254, 65_023, 65_024, u32::MAX] {
            let [first, second, _, last] = candidate(number).octets();
            assert!(
                first == 127 && second != 0 && second != 255 && last != 0 && last != 255,
                "{number}"
            );
        }
        assert_eq!(candidate(0), Ipv4Addr::new(127, 1, 0, 1));
    }

    #[test]
    fn an_address_is_given_out_once() {
        let addresses = Addresses::new();
        let first = addresses.reserve(&[2222]).unwrap();
        addresses.next.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        let second = addresses.reserve(&[2222]).unwrap();
        assert_ne!(first.address, second.address);
    }
}
