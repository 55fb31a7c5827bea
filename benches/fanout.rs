//! What a delivery costs: a real server in a process of its own, 1 to 10,000 sessions on loopback sockets, messages
//! published by real senders over sockets and stored with fdatasync. Beside it in every round the raw limit: one thread
//! that writes prebuilt bytes of the same frames to as many sockets. `cargo bench --bench fanout`, shorter with
//! `-- --quick`.
//!
//! Two regimes. *One message per write*: the next message is published when every session has the one before, so nothing
//! can be joined. *Saturated*: four senders with 64 messages under way each, receivers that send receipts as the default
//! client does; the raw limit is then asked for as many frames per write as the clients saw per read, which is at least
//! what the server wrote at once, so the ratio is rather too hard on the server than too easy.
//!
//! CPU is the writing process's (user, system, and on loopback the receivers' input path). Server and raw writer are pinned
//! to core 0, the clients to core 1. Medians of rounds.

mod common;
#[path = "../examples/common/fleet.rs"]
mod fleet;
#[path = "../examples/common/frames.rs"]
mod frames;
#[path = "../examples/common/msgpack.rs"]
mod msgpack;
#[path = "../examples/common/procfs.rs"]
mod procfs;
#[path = "../examples/common/raw.rs"]
mod raw;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail, ensure};
use chinwag::app::App;
use chinwag::config::Config;
use chinwag::credentials::Credentials;
use common::{Plan, median};
use fleet::{Crew, Fleet, TURN_MAX};
use frames::{Incoming, MSG_NO_BYTES, SendTemplate};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use procfs::Process;
use protocol::ids::{ChannelKey, ChannelType, DeviceFlag, Uid};
use protocol::native::{ClientFrame, Durability, Receipt, ServerFrame};
use raw::Link;

const WIDTHS: [usize; 4] = [1, 100, 1_000, 10_000];
const SATURATED_WIDTH: usize = 1_000;
const SENDERS: usize = 4;
const IN_FLIGHT: usize = 64;
const PAYLOAD_BYTES: usize = 128;
const CHANNEL: &str = "fan";
const CONNECTING: usize = 256;
/// Nothing here takes longer on a healthy machine.
const LIMIT: Duration = Duration::from_secs(60);
const SERVER_CORE: usize = 0;
const CLIENT_CORE: usize = 1;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("--serve") => return serve(Path::new(&arguments[2]), arguments[3].parse()?),
        Some("--write") => return write_raw(Path::new(&arguments[2])),
        _ => {}
    }
    let Some(plan) = Plan::from_args(3, Duration::from_millis(700)) else { return Ok(()) };
    pin(CLIENT_CORE);
    println!("{PAYLOAD_BYTES} B payloads; ns of CPU per delivery, medians of {} rounds", plan.rounds);
    println!("{:>8} {:<22} {:>12} {:>10} {:>10} {:>7}", "sessions", "", "deliveries/s", "server", "raw", "ratio");
    let widths = if plan.rounds == 1 { &WIDTHS[..3] } else { &WIDTHS[..] };
    for width in widths.iter().copied() {
        compare(plan, width, false)?;
    }
    compare(plan, SATURATED_WIDTH, true)
}

/// Best effort: on a machine of one core everything shares it.
fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    if let Err(e) = rustix::thread::sched_setaffinity(None, &set) {
        eprintln!("not pinned to core {core}: {e}");
    }
}

// The server's process.

fn user(index: usize) -> String {
    format!("member-{index}")
}

fn token(index: usize) -> String {
    format!("token-of-member-{index}")
}

fn serve(dir: &Path, members: usize) -> Result<()> {
    pin(SERVER_CORE);
    raw::raise_descriptor_limit(members)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let mut config = Config { data_dir: dir.to_owned(), shards: 1, ..Config::default() };
        config.listen.socket = "127.0.0.1:0".parse()?;
        config.listen.http = "127.0.0.1:0".parse()?;
        config.wukong.tcp_listen = None;
        config.limits.connections_max = config.limits.connections_max.max(members + 1_000);
        let app = App::start(config).await?;
        let credentials = Credentials::open(dir)?;
        let (hub, credentials) = (app.hub(), &credentials);
        stream::iter(0..members)
            .map(|index| async move {
                let hash = credentials.hash(&token(index));
                hub.set_token(Uid::new(&user(index))?, DeviceFlag(0), 0, hash).await.map_err(Error::new)
            })
            .buffer_unordered(256)
            .try_collect::<Vec<()>>()
            .await?;
        let uids = (0..members).map(|index| Uid::new(&user(index))).collect::<Result<Vec<_>, _>>()?;
        let key = ChannelKey::named(CHANNEL, ChannelType::Group)?;
        for part in uids.chunks(1_000) {
            hub.add_members(key.clone(), part.to_vec(), false).await?;
        }
        println!("{}", app.socket_addr());
        // The parent ends this process by closing its input.
        let (ended, end) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let _ = ended.send(());
        });
        let _ = end.await;
        Ok(())
    })
}

// The raw writer's process.

/// Takes as many connections as it is told, then writes the frame to each: so many times, so many in one write. Numbers
/// come on standard input as big-endian u32: connections, then pairs of (frames per write, writes) until a zero.
fn write_raw(frame: &Path) -> Result<()> {
    pin(SERVER_CORE);
    raw::raise_descriptor_limit(WIDTHS[WIDTHS.len() - 1])?;
    let frame = std::fs::read(frame)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    rustix::net::listen(&listener, 4_096)?;
    println!("{}", listener.local_addr()?);
    let mut input = std::io::stdin().lock();
    let mut number = || -> std::io::Result<u32> {
        let mut bytes = [0; 4];
        input.read_exact(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    };
    // The end of the input is the end of the work.
    while let Ok(connections) = number() {
        let mut sockets = Vec::with_capacity(connections as usize);
        for _ in 0..connections {
            sockets.push(accept(&listener)?);
        }
        loop {
            let frames_per_write = number()?;
            if frames_per_write == 0 {
                break;
            }
            let writes = number()?;
            let bytes = frame.repeat(frames_per_write as usize);
            for _ in 0..writes {
                for socket in &mut sockets {
                    socket.write_all(&bytes)?;
                }
            }
        }
    }
    Ok(())
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let (mut socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    let mut request = Vec::new();
    let mut part = [0; 1_024];
    while !request.ends_with(b"\r\n\r\n") {
        let n = socket.read(&mut part)?;
        ensure!(n > 0, "a client left during the upgrade");
        request.extend_from_slice(&part[..n]);
    }
    socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")?;
    Ok(socket)
}

// The clients.

/// A process that writes to us.
struct Writer {
    child: Child,
    process: Process,
    url: String,
    _stdout: BufReader<ChildStdout>,
}

impl Writer {
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the writer's process")?;
        let mut stdout = BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address = line.trim();
        ensure!(!address.is_empty(), "the writer's process did not start");
        let process = Process::with_pid(child.id())?;
        Ok(Self { url: format!("ws://{address}"), process, child, _stdout: stdout })
    }

    fn tell(&mut self, numbers: &[u32]) -> Result<()> {
        let input = self.child.stdin.as_mut().context("no input")?;
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        input.write_all(&bytes)?;
        input.flush().context("telling the writer")
    }

    /// Waits until what ended connections left behind is cleared away.
    #[expect(
        clippy::disallowed_methods,
        reason = "this process does nothing else, and must not, while the other is measured"
    )]
    fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        let mut before = self.process.cpu()?;
        while Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(60));
            let now = self.process.cpu()?;
            if now == before {
                return Ok(());
            }
            before = now;
        }
        bail!("the server does not come to rest")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Its files go with the scratch directory.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Counts what the clients get.
struct Watch {
    authenticates: bool,
    received: Vec<u64>,
    ready: usize,
    messages: u64,
    acks: u64,
    reads: u64,
    frame: Option<Vec<u8>>,
}

impl Watch {
    fn new(size: usize, authenticates: bool) -> Self {
        let received = vec![0; size];
        Self { authenticates, received, ready: 0, messages: 0, acks: 0, reads: 0, frame: None }
    }
}

impl Crew for Watch {
    fn opened(&mut self, index: usize, link: &mut Link) -> Result<()> {
        if self.authenticates {
            return frames::push(link.out(), &frames::connect(&user(index), &token(index), "bench", None));
        }
        self.ready += 1;
        Ok(())
    }

    fn input(&mut self, index: usize, _: &mut Link, bytes: &[u8]) -> Result<usize> {
        let mut used = 0;
        let mut delivered = false;
        while let Some((frame, tail)) = raw::split_frame(&bytes[used..])? {
            let start = used;
            used = bytes.len() - tail.len();
            if frame.opcode != 2 {
                continue;
            }
            match frames::read(frame.payload)? {
                Incoming::Deliver(deliver) => {
                    delivered = true;
                    self.received[index] += deliver.count as u64;
                    self.messages += deliver.count as u64;
                    if self.frame.is_none() {
                        self.frame = Some(bytes[start..used].to_vec());
                    }
                }
                Incoming::Ack { .. } => self.acks += 1,
                Incoming::Unknown => {}
                Incoming::Other(other) => match *other {
                    ServerFrame::Connected(_) => self.ready += 1,
                    ServerFrame::Refused(refused) => bail!("refused: {}", refused.text),
                    ServerFrame::Gap(_) => bail!("a gap notice: the clients were too slow to measure the server"),
                    _ => {}
                },
            }
        }
        self.reads += u64::from(delivered);
        Ok(used)
    }

    fn lost(&mut self, index: usize, cause: Error) -> Result<()> {
        Err(cause.context(format!("connection {index} was lost")))
    }
}

struct Figures {
    per_second: f64,
    cpu_ns: f64,
    frames_per_read: f64,
}

/// Sends one message at a time, or keeps many under way, and measures the deliveries.
struct Session<'a> {
    writer: &'a mut Writer,
    fleet: Fleet,
    watch: Watch,
    receivers: usize,
}

impl<'a> Session<'a> {
    fn start(writer: &'a mut Writer, receivers: usize, senders: usize) -> Result<Self> {
        let size = receivers + senders;
        let mut fleet = Fleet::new(&writer.url, size)?;
        let mut watch = Watch::new(size, senders > 0);
        if senders == 0 {
            writer.tell(&[receivers as u32])?;
        }
        fleet.connect_all(0..size, CONNECTING, LIMIT, &mut watch, |watch| watch.ready, |_| {})?;
        Ok(Self { writer, fleet, watch, receivers })
    }

    fn turn_until(&mut self, deadline: Instant, mut done: impl FnMut(&Watch) -> bool) -> Result<()> {
        while !done(&self.watch) {
            ensure!(Instant::now() < deadline, "deliveries stopped at {}", self.watch.messages);
            self.fleet.turn(TURN_MAX, &mut self.watch)?;
        }
        Ok(())
    }

    fn figures(&self, started: Instant, cpu: Duration) -> Result<Figures> {
        let (deliveries, seconds) = (self.watch.messages as f64, started.elapsed().as_secs_f64());
        let cpu = (self.writer.process.cpu()? - cpu).as_secs_f64();
        Ok(Figures {
            per_second: deliveries / seconds,
            cpu_ns: cpu * 1e9 / deliveries.max(1.0),
            frames_per_read: deliveries / self.watch.reads.max(1) as f64,
        })
    }

    /// `send` publishes one message to everybody.
    fn one_per_write(&mut self, cell: Duration, mut send: impl FnMut(&mut Self) -> Result<()>) -> Result<Figures> {
        let (cpu, started) = (self.writer.process.cpu()?, Instant::now());
        let mut published = 0u64;
        let before = self.watch.messages;
        let deadline = started + cell + LIMIT;
        while started.elapsed() < cell {
            send(self)?;
            published += 1;
            let due = before + published * self.receivers as u64;
            self.turn_until(deadline, |watch| watch.messages >= due)?;
        }
        self.watch.messages -= before;
        let figures = self.figures(started, cpu);
        self.watch.messages += before;
        figures
    }
}

/// What real senders send.
struct Publisher {
    template: SendTemplate,
    sent: u64,
}

impl Publisher {
    fn send(&mut self, session: &mut Session<'_>, sender: usize) -> Result<()> {
        self.sent += 1;
        let mut name = [b'0'; MSG_NO_BYTES];
        name.copy_from_slice(&format!("{:0MSG_NO_BYTES$x}", self.sent).as_bytes()[..MSG_NO_BYTES]);
        let mut payload = [0; PAYLOAD_BYTES];
        payload[..8].copy_from_slice(&self.sent.to_be_bytes());
        let index = session.receivers + sender;
        let link = session.fleet.link(index).context("a sender is gone")?;
        self.template.push(link.out(), self.sent as u32, &name, &payload, &[]);
        session.fleet.flush(index, &mut session.watch)
    }

    /// Four senders, a bounded number of deliveries under way, receipts once a second from everybody.
    fn saturate(&mut self, session: &mut Session<'_>, cell: Duration) -> Result<Figures> {
        let base = self.sent;
        let (cpu, started) = (session.writer.process.cpu()?, Instant::now());
        // A sender gets the messages of the other senders.
        let per_message = (session.receivers + SENDERS - 1) as u64;
        let window = (SENDERS * IN_FLIGHT) as u64;
        let mut receipts = 0;
        while started.elapsed() < cell {
            let arrived = session.watch.messages / per_message;
            while self.sent - base < arrived.min(session.watch.acks) + window {
                self.send(session, (self.sent as usize) % SENDERS)?;
            }
            session.fleet.turn(Duration::from_millis(1), &mut session.watch)?;
            let due = (started.elapsed().as_secs_f64() * session.receivers as f64) as usize;
            while receipts < due {
                let index = receipts % session.receivers;
                receipts += 1;
                let message_seq = base + session.watch.received[index];
                let receipt = Receipt { channel_id: CHANNEL.into(), channel_type: 2, message_seq };
                let link = session.fleet.link(index).context("a receiver is gone")?;
                frames::push(link.out(), &ClientFrame::Receipt(receipt))?;
                session.fleet.flush(index, &mut session.watch)?;
            }
        }
        let due = (self.sent - base) * per_message;
        session.turn_until(Instant::now() + LIMIT, |watch| watch.messages >= due)?;
        session.figures(started, cpu)
    }
}

fn compare(plan: Plan, width: usize, saturated: bool) -> Result<()> {
    let dir = common::scratch_dir()?;
    let members = (width + SENDERS).to_string();
    let data = dir.path().join("data").to_string_lossy().into_owned();
    let mut server = Writer::start(&["--serve", &data, &members])?;
    let template = SendTemplate::new(CHANNEL, 2, PAYLOAD_BYTES, Durability::Disk)?;
    let mut publisher = Publisher { template, sent: 0 };
    let frame_path = dir.path().join("frame");
    let mut raw_writer: Option<Writer> = None;
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        server.settle()?;
        let senders = if saturated { SENDERS } else { 1 };
        let mut session = Session::start(&mut server, width, senders)?;
        let figures = if saturated {
            publisher.saturate(&mut session, plan.cell)?
        } else {
            session.one_per_write(plan.cell, |session| publisher.send(session, 0))?
        };
        let frame = session.watch.frame.take().context("nothing was delivered")?;
        drop(session);

        // The raw writer writes the frame of a single message.
        let raw_writer = match &mut raw_writer {
            Some(writer) => writer,
            none => {
                let single = if saturated { single_frame(&mut server, &mut publisher, width)? } else { frame };
                std::fs::write(&frame_path, single)?;
                none.insert(Writer::start(&["--write", &frame_path.to_string_lossy()])?)
            }
        };
        let mut session = Session::start(raw_writer, width, 0)?;
        let limit = if saturated {
            raw_saturated(&mut session, figures.frames_per_read.round().max(1.0) as u32, plan.cell)?
        } else {
            session.one_per_write(plan.cell, |session| session.writer.tell(&[1, 1]))?
        };
        drop(session);
        raw_writer.tell(&[0])?;
        ours.push(figures);
        limits.push(limit);
    }
    let of = |all: &[Figures], pick: fn(&Figures) -> f64| median(all.iter().map(pick).collect());
    let ratio = median(ours.iter().zip(&limits).map(|(ours, limit)| ours.cpu_ns / limit.cpu_ns).collect());
    let regime = if saturated {
        format!("saturated, {:.0} per read", of(&ours, |figures| figures.frames_per_read))
    } else {
        "one per write".to_owned()
    };
    println!(
        "{width:>8} {regime:<22} {:>12.0} {:>10.0} {:>10.0} {ratio:>7.2}",
        of(&ours, |figures| figures.per_second),
        of(&ours, |figures| figures.cpu_ns),
        of(&limits, |figures| figures.cpu_ns)
    );
    Ok(())
}

/// The frame of one message alone, as the server writes it.
fn single_frame(server: &mut Writer, publisher: &mut Publisher, width: usize) -> Result<Vec<u8>> {
    server.settle()?;
    let mut session = Session::start(server, width, 1)?;
    publisher.send(&mut session, 0)?;
    session.turn_until(Instant::now() + LIMIT, |watch| watch.messages >= width as u64)?;
    session.watch.frame.take().context("nothing was delivered")
}

/// Two batches of writes under way, so that the writer never waits for us.
fn raw_saturated(session: &mut Session<'_>, frames_per_write: u32, cell: Duration) -> Result<Figures> {
    const WRITES: u32 = 4;
    let per_batch = u64::from(frames_per_write * WRITES) * session.receivers as u64;
    let (cpu, started) = (session.writer.process.cpu()?, Instant::now());
    let mut batches = 0;
    while started.elapsed() < cell {
        session.writer.tell(&[frames_per_write, WRITES])?;
        batches += 1;
        let due = (batches - 1) * per_batch;
        session.turn_until(Instant::now() + LIMIT, |watch| watch.messages >= due)?;
    }
    let due = batches * per_batch;
    session.turn_until(Instant::now() + LIMIT, |watch| watch.messages >= due)?;
    session.figures(started, cpu)
}
