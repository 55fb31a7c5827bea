//! Proxies in between: whose word about a client's address is taken, and what the word is.
//!
//! Owns the list of trusted proxies (`listen.trusted_proxies`), the reading of `X-Forwarded-For` and of the header of the PROXY
//! protocol. Refuses to know sockets, HTTP types and what an address is wanted for. Invariants: nobody is believed who is not
//! on the list, this machine included; of a list of addresses only what trusted proxies added is believed; what cannot be
//! read makes nobody else's address out of it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use ppp::{v1, v2};

/// Longest header of the PROXY protocol that is read, in bytes: addresses and some kilobytes of extensions, which are passed
/// over.
pub const HEADER_BYTES_MAX: usize = 4 * 1024;
/// Longest header of version 1 (proxy-protocol.txt section 2.1).
const LINE_BYTES_MAX: usize = 107;
/// Bytes of version 2 before its addresses (proxy-protocol.txt section 2.2): signature, command, family, length.
const FIXED_BYTES: usize = 16;

/// Whose word is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    blocks: Vec<IpNet>,
}

impl Proxies {
    /// Reads a list with commas between: addresses and blocks such as `10.0.0.0/8`. Empty: nobody.
    ///
    /// # Errors
    /// The entry that is neither.
    pub fn parse(list: &str) -> Result<Self, String> {
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let block = |entry: &str| {
            let address = || entry.parse::<IpAddr>().ok().map(|address| IpNet::from(address.to_canonical()));
            entry.parse::<IpNet>().ok().or_else(address).ok_or_else(|| entry.to_owned())
        };
        Ok(Self { blocks: entries.map(block).collect::<Result<_, _>>()? })
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Whether this is a trusted proxy.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        // A socket that takes both families shows IPv4 peers as mapped addresses.
        let address = address.to_canonical();
        self.blocks.iter().any(|block| block.contains(&address))
    }

    /// The client behind a peer by the values of `X-Forwarded-For`, in the order they came: the right-most address that is no
    /// trusted proxy, since each proxy adds at the right whom it heard, and what stands left of that anybody may have written.
    /// The left-most where all are trusted; the last proxy that could be read where one named no address. The peer itself
    /// where it is not trusted.
    #[must_use]
    pub fn client_of<'a>(&self, peer: IpAddr, values: impl DoubleEndedIterator<Item = &'a [u8]>) -> IpAddr {
        let mut client = peer.to_canonical();
        let entries = values.rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
        for entry in entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
            if !self.trusts(client) {
                break;
            }
            let Some(named) = address_of(entry) else { break };
            client = named;
        }
        client
    }
}

/// An entry of `X-Forwarded-For`: an address; some proxies add its port, or brackets around IPv6.
fn address_of(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

/// What the first bytes of a proxy's connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The header is not whole: more bytes are needed.
    Incomplete,
    /// It is none.
    Malformed,
    /// It is whole.
    Whole {
        /// The client; `None`: the proxy speaks for itself, or of what is no TCP address.
        client: Option<SocketAddr>,
        /// Length of the header: what follows is the client's.
        bytes: usize,
    },
}

/// Reads the header of the PROXY protocol, version 1 or 2, that a connection begins with. The crate's parsers see whole
/// headers only: what they make of half a line depends on where it was cut.
#[must_use]
pub fn header(bytes: &[u8]) -> Header {
    let begins = |signature: &[u8]| {
        let known = bytes.len().min(signature.len());
        known > 0 && bytes[..known] == signature[..known]
    };
    if bytes.is_empty() {
        Header::Incomplete
    } else if begins(v1::PROTOCOL_PREFIX.as_bytes()) {
        line(bytes)
    } else if begins(v2::PROTOCOL_PREFIX) {
        binary(bytes)
    } else {
        Header::Malformed
    }
}

fn whole(client: Option<SocketAddr>, bytes: usize) -> Header {
    let client = client.map(|client| SocketAddr::new(client.ip().to_canonical(), client.port()));
    Header::Whole { client, bytes }
}

/// Version 1: a line of text.
fn line(bytes: &[u8]) -> Header {
    let Some(end) = bytes.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LINE_BYTES_MAX { Header::Incomplete } else { Header::Malformed };
    };
    let length = end + 1;
    match v1::Header::try_from(&bytes[..length]) {
        Ok(read) if read.header.len() == length => match read.addresses {
            v1::Addresses::Tcp4(ip) => whole(Some((ip.source_address, ip.source_port).into()), length),
            v1::Addresses::Tcp6(ip) => whole(Some((ip.source_address, ip.source_port).into()), length),
            v1::Addresses::Unknown => whole(None, length),
        },
        Ok(_) | Err(_) => Header::Malformed,
    }
}

/// Version 2: binary. Its extensions are passed over.
fn binary(bytes: &[u8]) -> Header {
    let Some(size) = bytes.get(FIXED_BYTES - 2..FIXED_BYTES) else { return Header::Incomplete };
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([size[0], size[1]]));
    if length > HEADER_BYTES_MAX {
        return Header::Malformed;
    }
    let Some(bytes) = bytes.get(..length) else { return Header::Incomplete };
    let Ok(read) = v2::Header::try_from(bytes) else { return Header::Malformed };
    match (read.command, read.protocol, read.addresses) {
        // A health check of the proxy's own.
        (v2::Command::Local, ..) => whole(None, length),
        (v2::Command::Proxy, v2::Protocol::Stream, v2::Addresses::IPv4(ip)) => {
            whole(Some((ip.source_address, ip.source_port).into()), length)
        }
        (v2::Command::Proxy, v2::Protocol::Stream, v2::Addresses::IPv6(ip)) => {
            whole(Some((ip.source_address, ip.source_port).into()), length)
        }
        (v2::Command::Proxy, _, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => whole(None, length),
        (v2::Command::Proxy, ..) => Header::Malformed,
    }
}

#[cfg(test)]
mod tests;
