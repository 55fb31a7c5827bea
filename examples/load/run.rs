//! The loop of a run: connect, send, wait for everything, look at the books.
//!
//! Owns pacing and time limits: every phase has a deadline.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;

use crate::args::Args;
use crate::fleet::{Fleet, TURN_MAX};
use crate::plan::Plan;
use crate::procfs::Process;
use crate::report::{Mark, Report};
use crate::world::{World, ns};
use crate::wukong::Protocol;

/// Shortest pause of the open loop: what falls due within it goes out together.
const PACE_MIN: Duration = Duration::from_micros(30);
/// Connects per second that any server reaches, for the connect deadline.
const CONNECTS_PER_SECOND_MIN: u64 = 200;
/// Between two looks at whether everything has arrived.
const CHECK_NS: u64 = 5_000_000;
/// Between two lines of progress.
const PROGRESS_NS: u64 = 250_000_000;
/// Channels read back at once.
const READ_BACKS: usize = 64;

struct Runner<'a> {
    args: &'a Args,
    fleet: Fleet,
    world: World,
    flushing: Vec<u32>,
    frame: Vec<u8>,
    bar: ProgressBar,
    shown_ns: u64,
    shown: (u64, u64),
    pinged_ns: u64,
    next_sender: usize,
    starved: Vec<u32>,
    watched: Option<Process>,
}

/// Runs it all.
///
/// # Errors
/// A connection is lost, the server refuses for good, or a deadline passes while connecting.
pub fn run(args: &Args, plan: Plan, key: &str) -> Result<Report> {
    let watched = args.server_pid.map(Process::with_pid).transpose()?;
    let total = plan.connections();
    let (prefix, seed) = (plan.prefix.clone(), plan.seed);
    let reading = plan.senders + plan.receivers;
    ensure!(args.protocol == Protocol::Native || !args.read_back, "--read-back asks native history");
    let url = args.server.as_deref().unwrap_or(args.protocol.default_url());
    let mut fleet = Fleet::new(url, args.protocol.subprotocol(), total)?;
    let mut world = World::new(args, plan, key)?;
    let bar = ProgressBar::new_spinner();
    let limit = Duration::from_secs(30 + total as u64 / CONNECTS_PER_SECOND_MIN);
    fleet.connect_all(
        0..total,
        args.connecting,
        limit,
        &mut world,
        |world| world.ready,
        |done| {
            bar.set_message(format!("{done} of {total} connected"));
        },
    )?;
    for index in reading..total {
        fleet.stall(index)?;
    }
    let mut runner = Runner {
        args,
        fleet,
        world,
        flushing: Vec::new(),
        frame: Vec::new(),
        bar,
        shown_ns: 0,
        shown: (0, 0),
        pinged_ns: 0,
        next_sender: 0,
        starved: Vec::new(),
        watched,
    };
    let mut marks = runner.send_phase()?;
    let complete = runner.drain_phase()?;
    let ended = runner.mark()?;
    if args.messages.is_some_and(|most| ended.counts.sent >= most) {
        // A given number of messages is measured until the last of them has arrived.
        marks.1 = ended.clone();
    }
    if complete && args.read_back {
        runner.read_back()?;
    }
    runner.bar.finish_and_clear();
    let mut world = runner.world;
    world.close();
    Ok(Report::new(args, prefix, seed, &world, marks, ended))
}

impl Runner<'_> {
    fn mark(&self) -> Result<Mark> {
        Ok(Mark {
            at_ns: self.world.clock(),
            counts: self.world.counts,
            own_cpu: Process::own().cpu()?,
            server_cpu: self.watched.as_ref().map(Process::cpu).transpose().context("the server is gone")?,
            server_rss: self.watched.as_ref().map(Process::rss).transpose().context("the server is gone")?,
        })
    }

    /// Sends until the time or the messages are over; returns the marks around what is measured.
    fn send_phase(&mut self) -> Result<(Mark, Mark)> {
        let start = self.world.clock();
        let from = start + ns(Duration::try_from_secs_f64(self.args.warm_up)?);
        let until = from + ns(Duration::try_from_secs_f64(self.args.duration)?);
        let most = self.args.messages.unwrap_or(u64::MAX);
        self.world.measure_from_ns = from;
        let mut begin = None;
        let mut due = start as f64;
        let step = self.args.rate.map(|rate| 1e9 / rate.max(1e-3));
        if step.is_none() {
            self.world.hungry = (0..self.args.connections as u32).collect();
            for index in 0..self.args.connections {
                if let Some(sender) = self.world.sender(index) {
                    sender.hungry = true;
                }
            }
        }
        loop {
            let now = self.world.clock();
            if begin.is_none() && (now >= from || self.args.warm_up == 0.0) {
                begin = Some(self.mark()?);
            }
            if now >= until || self.world.counts.sent >= most {
                break;
            }
            let timeout = match step {
                Some(step) => {
                    while due <= now as f64 && self.world.counts.sent < most {
                        self.send_one(due as u64)?;
                        due += step;
                    }
                    let pause = Duration::from_nanos((due - now as f64).max(0.0) as u64);
                    self.fleet.wake_after(pause.max(PACE_MIN))?;
                    TURN_MAX
                }
                None => {
                    self.feed(now, most)?;
                    TURN_MAX
                }
            };
            self.turn(timeout, "sending")?;
        }
        self.world.measure_until_ns = self.world.clock();
        let end = self.mark()?;
        Ok((begin.unwrap_or_else(|| end.clone()), end))
    }

    fn send_one(&mut self, intended_ns: u64) -> Result<()> {
        let index = self.next_sender;
        self.next_sender = (index + 1) % self.args.connections;
        let link = self.fleet.link(index).context("a sender is gone")?;
        self.world.send(index, link, intended_ns)
    }

    /// Closed loop: lets every sender that has room send.
    fn feed(&mut self, now: u64, most: u64) -> Result<()> {
        let allowance = (self.args.in_flight * self.args.connections) as u64 * self.world.readers();
        let mut hungry = std::mem::take(&mut self.world.hungry);
        hungry.append(&mut self.starved);
        for index in hungry.drain(..) {
            let conn = index as usize;
            loop {
                let paced = self.args.fanout && self.world.deliveries_open() >= allowance.max(1);
                let all_sent = self.world.counts.sent >= most;
                let Some(sender) = self.world.sender(conn) else { break };
                if sender.in_flight >= self.args.in_flight || all_sent {
                    sender.hungry = false;
                    break;
                }
                if paced || sender.held_until_ns > now {
                    self.starved.push(index);
                    break;
                }
                let link = self.fleet.link(conn).context("a sender is gone")?;
                self.world.send(conn, link, now)?;
            }
        }
        if self.world.hungry.is_empty() {
            self.world.hungry = hungry;
        }
        Ok(())
    }

    /// Writes what is queued, waits once, and does what time asks for.
    fn turn(&mut self, timeout: Duration, what: &str) -> Result<()> {
        let now = self.world.clock();
        loop {
            self.frame.clear();
            let Some(index) = self.world.next_receipt(now, &mut self.frame)? else { break };
            if let Some(link) = self.fleet.link(index) {
                link.push(&self.frame);
            }
        }
        // Senders do not keep the server's idle timer away by themselves, and receivers only by receipts.
        if now - self.pinged_ns > u64::from(self.world.heartbeat_s) * 500_000_000 {
            self.pinged_ns = now;
            for index in 0..self.world.reading() {
                if let Some(link) = self.fleet.link(index) {
                    self.world.ping(link)?;
                    self.fleet.flush(index, &mut self.world)?;
                }
            }
        }
        let mut flushing = std::mem::take(&mut self.flushing);
        self.world.take_queued(&mut flushing);
        for index in &flushing {
            self.fleet.flush(*index as usize, &mut self.world)?;
        }
        self.flushing = flushing;
        self.fleet.turn(timeout, &mut self.world)?;
        self.progress(what);
        Ok(())
    }

    fn progress(&mut self, what: &str) {
        let now = self.world.clock();
        if now - self.shown_ns < PROGRESS_NS {
            return;
        }
        let counts = &self.world.counts;
        let seconds = (now - self.shown_ns) as f64 / 1e9;
        let rate = |n: u64, before: u64| (n - before) as f64 / seconds;
        self.bar.set_message(format!(
            "{what}: {:.0} acks/s, {:.0} deliveries/s, {} under way, {} gaps",
            rate(counts.acked, self.shown.0),
            rate(counts.delivered, self.shown.1),
            self.world.in_flight(),
            counts.gaps,
        ));
        self.bar.tick();
        self.shown_ns = now;
        self.shown = (counts.acked, counts.delivered);
    }

    /// Waits until everything is acked and received; `false` when the time is over first.
    fn drain_phase(&mut self) -> Result<bool> {
        let deadline = self.world.clock() + ns(Duration::try_from_secs_f64(self.args.drain)?);
        let mut next_check = 0;
        loop {
            let now = self.world.clock();
            if now >= next_check {
                if self.world.in_flight() == 0 && self.world.all_received() {
                    return Ok(true);
                }
                next_check = now + CHECK_NS;
            }
            if now >= deadline {
                return Ok(false);
            }
            self.turn(Duration::from_millis(2), "waiting for the rest")?;
        }
    }

    /// Reads every channel back and compares.
    fn read_back(&mut self) -> Result<()> {
        let deadline = self.world.clock() + ns(Duration::try_from_secs_f64(self.args.drain)?);
        let mut next = 0;
        while next < self.world.channel_count() || self.world.fills_open() > 0 {
            while next < self.world.channel_count() && self.world.fills_open() < READ_BACKS {
                let reader = self.world.reader_of(next);
                let link = self.fleet.link(reader).context("a sender is gone")?;
                self.world.start_read_back(next, link)?;
                next += 1;
            }
            self.turn(Duration::from_millis(2), "reading back")?;
            anyhow::ensure!(self.world.clock() < deadline, "reading back took longer than --drain");
        }
        Ok(())
    }
}
