//! From a destination to a connection: looked up once, judged, and connected to what was judged.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use async_trait::async_trait;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::gate::Gate;
use crate::domain::egress::{Destination, Refusal};

/// Addresses of one name that are tried, one after the other.
const MOST_TRIED: usize = 4;

/// Who knows what a name leads to.
#[async_trait]
pub(super) trait Names: Send + Sync {
    async fn look_up(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The host's own resolver.
pub(super) struct HostNames;

#[async_trait]
impl Names for HostNames {
    async fn look_up(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(lookup_host((host, 0)).await?.map(|found| found.ip()).collect())
    }
}

/// Connects to an address that the gate's reach admits. Nothing is asked twice: who answers a second question differently
/// changes nothing.
pub(super) async fn dial(gate: &Gate, to: &Destination) -> Result<TcpStream, Refusal> {
    let found = match to.address() {
        Some(address) => vec![address],
        None => {
            let answer = timeout(gate.caps.answer_within, gate.shared.names.look_up(to.host())).await;
            answer.ok().and_then(Result::ok).unwrap_or_default()
        }
    };
    if found.is_empty() {
        return Err(Refusal::NoSuchName);
    }
    let admitted = found.into_iter().filter(|address| gate.reach.admits(*address));
    let admitted: Vec<IpAddr> =
        admitted.filter(|address| gate.reach.names(*address) || !is_this_host(*address)).take(MOST_TRIED).collect();
    if admitted.is_empty() {
        return Err(Refusal::NotPublic);
    }
    for address in admitted {
        let connecting = TcpStream::connect(SocketAddr::new(address, to.port()));
        if let Ok(Ok(stream)) = timeout(gate.caps.answer_within, connecting).await {
            // Small pieces go both ways; without it they wait for one another.
            let _only_slower = stream.set_nodelay(true);
            return Ok(stream);
        }
    }
    Err(Refusal::Unreachable)
}

/// Whether an address, public as it may be, is one of this host: then what would be sent there would come from it, too.
/// Nothing is sent.
fn is_this_host(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let own = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, 9))?;
        socket.local_addr()
    };
    own().is_ok_and(|own: SocketAddr| own.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_hosts_own_addresses_are_known_without_asking_anybody() {
        assert!(is_this_host(IpAddr::from([127, 0, 0, 1])));
        assert!(!is_this_host(IpAddr::from([192, 0, 2, 1])));
    }
}
