//! Many WebSocket connections on one thread: raw non-blocking sockets and one level-triggered epoll set.
//!
//! Owns sockets, the upgrade, frame headers in both directions and partial reads and writes. Refuses to know what the
//! frames say. Reads go through one buffer shared by all connections; a connection keeps bytes only while a frame is
//! incomplete, so that ten thousand of them cost little and the reader can keep up with a server core.

// Each example uses a part of the shared modules.
#![allow(dead_code)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// Bytes one read may bring: large, so that a busy connection costs few system calls.
pub const SCRATCH_BYTES: usize = 1 << 20;
/// Connections from one source address: beyond about half the port range every connect searches for a free port.
pub const CONNECTIONS_PER_SOURCE: usize = 12_000;
/// Descriptors kept for everything that is not a connection.
const DESCRIPTORS_RESERVED: u64 = 64;
/// The constant key of the upgrade: this client does not check the server's answer to it.
const UPGRADE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The constant mask of client frames. Masking protects proxies from hostile pages; a load tool on a direct connection
/// needs the server to do the work of unmasking, not an unpredictable key.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// Longest answer to the upgrade.
const UPGRADE_BYTES_MAX: usize = 16 << 10;

/// An epoll set whose members are named by numbers.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

/// What became ready.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// The number given to [`Poller::add`].
    pub token: u64,
    /// Bytes, an end or an error can be read.
    pub readable: bool,
    /// Bytes can be written.
    pub writable: bool,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new() -> Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(1_024) })
    }

    fn flags(readable: bool, writable: bool) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, readable);
        flags.set(EventFlags::OUT, writable);
        flags
    }

    /// Adds a descriptor.
    ///
    /// # Errors
    /// It is in the set already.
    pub fn add(&self, fd: impl AsFd, token: u64, readable: bool, writable: bool) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), Self::flags(readable, writable))?)
    }

    /// Changes what is waited for.
    ///
    /// # Errors
    /// It is not in the set.
    pub fn modify(&self, fd: impl AsFd, token: u64, readable: bool, writable: bool) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token), Self::flags(readable, writable))?)
    }

    /// Takes a descriptor out.
    ///
    /// # Errors
    /// It is not in the set.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits until something is ready or the time is over; `into` holds what is.
    ///
    /// # Errors
    /// The system call failed.
    pub fn wait(&mut self, timeout: Duration, into: &mut Vec<Ready>) -> Result<()> {
        into.clear();
        self.events.clear();
        // The call counts whole milliseconds; finer pacing comes from a [`Timer`] in the set.
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(e) => return Err(e).context("waiting for sockets"),
        }
        into.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            Ready {
                token: event.data.u64(),
                readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP),
                writable: flags.contains(EventFlags::OUT),
            }
        }));
        Ok(())
    }
}

/// A timer descriptor: paces an open loop finer than a millisecond.
pub struct Timer {
    fd: OwnedFd,
}

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new() -> Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self { fd: rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)? })
    }

    /// Fires once after `delay`.
    ///
    /// # Errors
    /// The system call failed.
    pub fn set(&self, delay: Duration) -> Result<()> {
        let delay = delay.max(Duration::from_nanos(1));
        let value = Timespec { tv_sec: delay.as_secs() as i64, tv_nsec: i64::from(delay.subsec_nanos()) };
        let interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval: interval, it_value: value };
        rustix::time::timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }

    /// Takes the firing, so that the set stops reporting it.
    pub fn clear(&self) {
        let mut count = [0; 8];
        // Nothing to read means it has not fired; both are fine here.
        let _ = rustix::io::read(&self.fd, &mut count);
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Raises the descriptor limit to its hard limit and checks that `connections` fit.
///
/// # Errors
/// They do not fit: more processes are needed.
pub fn raise_descriptor_limit(connections: usize) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    let needed = connections as u64 + DESCRIPTORS_RESERVED;
    if let Some(max) = limit.maximum {
        ensure!(
            needed <= max,
            "{connections} connections need {needed} descriptors, this process may have {max}: start several \
             processes with fewer connections and different prefixes"
        );
    }
    Ok(())
}

/// The source address of the `index`-th connection to a loopback server; `None`: let the kernel choose.
pub fn source_of(target: SocketAddr, index: usize) -> Option<Ipv4Addr> {
    let IpAddr::V4(ip) = target.ip() else { return None };
    let group = index / CONNECTIONS_PER_SOURCE;
    (ip.is_loopback() && group > 0).then(|| Ipv4Addr::new(127, 0, 0, (group as u8).saturating_add(1)))
}

/// Splits `ws://host:port/path` into an address, the host header and the path.
///
/// # Errors
/// Another scheme, or a host that does not resolve.
pub fn parse_ws_url(url: &str) -> Result<(SocketAddr, String, String)> {
    let rest = url.strip_prefix("ws://").with_context(|| format!("{url}: only ws:// is spoken here"))?;
    let (host, path) = rest.split_once('/').map_or((rest, "/".to_owned()), |(host, path)| (host, format!("/{path}")));
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut addresses = std::net::ToSocketAddrs::to_socket_addrs(&host).with_context(|| format!("resolving {host}"))?;
    Ok((addresses.next().with_context(|| format!("{host} has no address"))?, host, path))
}

/// Where to connect and as what.
#[derive(Debug, Clone)]
pub struct Target {
    address: SocketAddr,
    request: Vec<u8>,
}

impl Target {
    /// Takes a `ws://` URL and the subprotocol to ask for, or a `tcp://` one for a stream without an upgrade.
    ///
    /// # Errors
    /// As [`parse_ws_url`].
    pub fn new(url: &str, subprotocol: Option<&str>) -> Result<Self> {
        if let Some(host) = url.strip_prefix("tcp://") {
            let (address, _, _) = parse_ws_url(&format!("ws://{host}"))?;
            return Ok(Self { address, request: Vec::new() });
        }
        let (address, host, path) = parse_ws_url(url)?;
        let subprotocol = subprotocol.map_or(String::new(), |name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {UPGRADE_KEY}\r\n{subprotocol}\r\n"
        );
        Ok(Self { address, request: request.into_bytes() })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A stream without an upgrade.
    Connecting,
    Upgrading,
    Open,
}

/// One connection.
pub struct Link {
    stream: TcpStream,
    token: u64,
    phase: Phase,
    carried: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    waits_writable: bool,
}

/// A frame of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// 1 text, 2 binary, 8 close, 9 ping, 10 pong.
    pub opcode: u8,
    /// The content.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Code and reason of a close frame.
    pub fn close_reason(&self) -> (u16, String) {
        match self.payload {
            [a, b, text @ ..] => (u16::from_be_bytes([*a, *b]), String::from_utf8_lossy(text).into_owned()),
            _ => (1005, String::new()),
        }
    }
}

impl Link {
    /// Starts connecting; the upgrade request waits for the socket in the output.
    ///
    /// # Errors
    /// Out of descriptors or ports, or refused at once.
    pub fn connect(target: &Target, source: Option<Ipv4Addr>, token: u64, poller: &Poller) -> Result<Self> {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::for_address(target.address), Type::STREAM, Some(Protocol::TCP))
            .context("opening a socket")?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::from((source, 0)).into()).context("binding a source address")?;
        }
        match socket.connect(&target.address.into()) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(e) => return Err(e).with_context(|| format!("connecting to {}", target.address)),
        }
        let stream = TcpStream::from(socket);
        poller.add(&stream, token, true, true)?;
        Ok(Self {
            stream,
            token,
            phase: if target.request.is_empty() { Phase::Connecting } else { Phase::Upgrading },
            carried: Vec::new(),
            out: target.request.clone(),
            written: 0,
            waits_writable: true,
        })
    }

    /// Opens a stream that needs no upgrade; `true` the first time it can be written.
    pub fn open_stream(&mut self) -> bool {
        let opens = self.phase == Phase::Connecting;
        if opens {
            self.phase = Phase::Open;
        }
        opens
    }

    /// Whether the upgrade is done.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Reads what is there into `scratch`, behind what was carried over: returns how many bytes of it are to be looked
    /// at, 0 when nothing new came.
    ///
    /// # Errors
    /// The peer closed, or the connection failed.
    pub fn fill(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        let carried = self.carried.len();
        if carried >= scratch.len() {
            return Err(io::Error::other("a frame is larger than the read buffer"));
        }
        scratch[..carried].copy_from_slice(&self.carried);
        match self.stream.read(&mut scratch[carried..]) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
            Ok(n) => Ok(carried + n),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            Err(e) => Err(e),
        }
    }

    /// Looks for the end of the answer to the upgrade in `bytes`; returns the bytes behind it.
    ///
    /// # Errors
    /// Any other answer than 101.
    pub fn upgrade<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            ensure!(bytes.len() < UPGRADE_BYTES_MAX, "the answer to the upgrade does not end");
            return Ok(None);
        };
        if !bytes.starts_with(b"HTTP/1.1 101") {
            let line = bytes.split(|b| *b == b'\r').next().unwrap_or_default();
            bail!("the upgrade was refused: {}", String::from_utf8_lossy(line));
        }
        self.phase = Phase::Open;
        Ok(Some(&bytes[end + 4..]))
    }

    /// Keeps what could not be used yet for the next [`Link::fill`].
    pub fn carry(&mut self, rest: &[u8]) {
        if rest.is_empty() && self.carried.capacity() > 0 {
            self.carried = Vec::new();
        } else {
            self.carried.clear();
            self.carried.extend_from_slice(rest);
        }
    }

    /// Queues finished frames.
    pub fn push(&mut self, frames: &[u8]) {
        self.out.extend_from_slice(frames);
    }

    /// The queue itself, to build frames in place.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Bytes queued and not yet taken by the kernel.
    pub fn backlog(&self) -> usize {
        self.out.len() - self.written
    }

    /// Writes what the kernel takes; waits for the rest in `poller`.
    ///
    /// # Errors
    /// The connection failed.
    pub fn flush(&mut self, poller: &Poller) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(n) => self.written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    if !self.waits_writable {
                        self.waits_writable = true;
                        poller.modify(&self.stream, self.token, true, true)?;
                    }
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
        }
        self.out.clear();
        self.written = 0;
        // A burst must not pin its memory for the rest of the run.
        if self.out.capacity() > 256 << 10 {
            self.out = Vec::new();
        }
        if self.waits_writable {
            self.waits_writable = false;
            poller.modify(&self.stream, self.token, true, false)?;
        }
        Ok(())
    }

    /// Never reads again: the stalled reader of a load.
    ///
    /// # Errors
    /// The connection is not in the set.
    pub fn stall(&mut self, poller: &Poller) -> io::Result<()> {
        poller.remove(&self.stream)
    }
}

/// Splits the first complete frame off `bytes`; `None` when it is not complete yet.
///
/// # Errors
/// A fragmented or masked frame: this server sends neither.
pub fn split_frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, &[u8])>> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
    ensure!(first & 0x80 != 0 && first & 0x70 == 0, "a fragmented frame or reserved bits: first byte {first:#04x}");
    ensure!(second & 0x80 == 0, "the server masked a frame");
    let (length, rest) = match second {
        126 => match rest {
            [a, b, rest @ ..] => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            _ => return Ok(None),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((length, rest)) => (usize::try_from(u64::from_be_bytes(*length))?, rest),
            None => return Ok(None),
        },
        short => (usize::from(short), rest),
    };
    if rest.len() < length {
        return Ok(None);
    }
    let (payload, rest) = rest.split_at(length);
    Ok(Some((Frame { opcode: first & 0x0f, payload }, rest)))
}

/// Appends a masked frame with this payload.
pub fn push_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        n @ 0..126 => out.push(0x80 | n as u8),
        n @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    let start = out.len();
    out.extend_from_slice(payload);
    let wide = u64::from_ne_bytes([MASK[0], MASK[1], MASK[2], MASK[3], MASK[0], MASK[1], MASK[2], MASK[3]]);
    let (eights, tail) = out[start..].as_chunks_mut::<8>();
    for eight in eights {
        *eight = (u64::from_ne_bytes(*eight) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(MASK.iter().cycle()) {
        *byte ^= mask;
    }
}
