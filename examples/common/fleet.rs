//! A fleet of raw connections driven by one loop.
//!
//! Owns the poller, the links and the one read buffer they share. Refuses to know frames: a [`Crew`] looks at the bytes.
//! Invariant: nothing here waits longer than the timeout it is given.

// Each example uses a part of the shared modules.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, ensure};

use crate::raw::{self, Link, Poller, Ready, SCRATCH_BYTES, Target, Timer};

/// The token of the timer in the set.
const TIMER: u64 = u64::MAX;
/// Longest wait of a loop that has nothing to do: keeps deadlines and progress alive.
pub const TURN_MAX: Duration = Duration::from_millis(20);

/// Who looks at what the connections bring.
pub trait Crew {
    /// The upgrade of connection `index` is done: time for its first frame.
    ///
    /// # Errors
    /// Ends the run.
    fn opened(&mut self, index: usize, link: &mut Link) -> Result<()>;

    /// Bytes behind the upgrade, whole frames and perhaps a part of one: returns how many were used.
    ///
    /// # Errors
    /// Ends the run.
    fn input(&mut self, index: usize, link: &mut Link, bytes: &[u8]) -> Result<usize>;

    /// The connection is gone. An `Err` ends the run.
    ///
    /// # Errors
    /// Losing it is not part of the plan.
    fn lost(&mut self, index: usize, cause: Error) -> Result<()>;
}

/// The connections.
pub struct Fleet {
    poller: Poller,
    links: Vec<Option<Link>>,
    scratch: Vec<u8>,
    ready: Vec<Ready>,
    timer: Timer,
    address: SocketAddr,
    target: Target,
}

impl Fleet {
    /// Room for `size` connections to a `ws://` URL, which ask for a subprotocol, or to a `tcp://` one.
    ///
    /// # Errors
    /// The URL is none, or so many descriptors are not to be had.
    pub fn new(url: &str, subprotocol: Option<&str>, size: usize) -> Result<Self> {
        raw::raise_descriptor_limit(size)?;
        let target = Target::new(url, subprotocol)?;
        let poller = Poller::new()?;
        let timer = Timer::new()?;
        poller.add(&timer, TIMER, true, false)?;
        Ok(Self {
            poller,
            links: (0..size).map(|_| None).collect(),
            scratch: vec![0; SCRATCH_BYTES],
            ready: Vec::with_capacity(1_024),
            timer,
            address: target.address(),
            target,
        })
    }

    /// Starts connection `index`.
    ///
    /// # Errors
    /// As [`Link::connect`].
    pub fn start(&mut self, index: usize) -> Result<()> {
        let source = raw::source_of(self.address, index);
        let link = Link::connect(&self.target, source, index as u64, &self.poller)?;
        self.links[index] = Some(link);
        Ok(())
    }

    /// The connection, while it is there.
    pub fn link(&mut self, index: usize) -> Option<&mut Link> {
        self.links.get_mut(index)?.as_mut()
    }

    /// Drops connection `index` without a word, as a network does.
    pub fn drop_link(&mut self, index: usize) {
        self.links[index] = None;
    }

    /// Writes what connection `index` has queued.
    ///
    /// # Errors
    /// The crew does not want to lose it.
    pub fn flush(&mut self, index: usize, crew: &mut impl Crew) -> Result<()> {
        let Some(link) = self.links[index].as_mut() else { return Ok(()) };
        match link.flush(&self.poller) {
            Ok(()) => Ok(()),
            Err(e) => {
                self.links[index] = None;
                crew.lost(index, Error::new(e).context("writing"))
            }
        }
    }

    /// Never reads connection `index` again.
    ///
    /// # Errors
    /// It is not there.
    pub fn stall(&mut self, index: usize) -> Result<()> {
        let link = self.links[index].as_mut().context("no such connection")?;
        Ok(link.stall(&self.poller)?)
    }

    /// Fires after `delay`: the next [`Fleet::turn`] returns then.
    ///
    /// # Errors
    /// As [`Timer::set`].
    pub fn wake_after(&mut self, delay: Duration) -> Result<()> {
        self.timer.set(delay)
    }

    /// Waits for sockets once and lets the crew look at what came.
    ///
    /// # Errors
    /// What the crew says.
    pub fn turn(&mut self, timeout: Duration, crew: &mut impl Crew) -> Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.wait(timeout, &mut ready)?;
        for event in &ready {
            if event.token == TIMER {
                self.timer.clear();
                continue;
            }
            let index = event.token as usize;
            if let Err(cause) = self.serve(index, *event, crew)? {
                self.links[index] = None;
                crew.lost(index, cause)?;
            }
        }
        self.ready = ready;
        Ok(())
    }

    /// The inner error loses the connection, the outer one ends the run.
    fn serve(&mut self, index: usize, event: Ready, crew: &mut impl Crew) -> Result<Result<()>> {
        let Some(link) = self.links[index].as_mut() else { return Ok(Ok(())) };
        if event.writable && link.open_stream() {
            crew.opened(index, link)?;
        }
        if event.writable
            && let Err(e) = link.flush(&self.poller)
        {
            return Ok(Err(Error::new(e).context("writing")));
        }
        if !event.readable {
            return Ok(Ok(()));
        }
        let filled = match link.fill(&mut self.scratch) {
            Ok(0) => return Ok(Ok(())),
            Ok(n) => n,
            Err(e) => return Ok(Err(Error::new(e).context("reading"))),
        };
        let mut bytes = &self.scratch[..filled];
        if !link.is_open() {
            match link.upgrade(bytes) {
                Ok(None) => {
                    link.carry(bytes);
                    return Ok(Ok(()));
                }
                Ok(Some(rest)) => {
                    bytes = rest;
                    crew.opened(index, link)?;
                }
                Err(e) => return Ok(Err(e)),
            }
        }
        if !bytes.is_empty() {
            let used = crew.input(index, link, bytes)?;
            bytes = &bytes[used..];
        }
        link.carry(bytes);
        if link.backlog() > 0
            && let Err(e) = link.flush(&self.poller)
        {
            return Ok(Err(Error::new(e).context("writing")));
        }
        Ok(Ok(()))
    }

    /// Connects `indices`, at most `in_flight` at once, until `settled` (asked with the crew) has counted them all.
    ///
    /// # Errors
    /// A connect fails, the crew loses one, or `limit` is over.
    pub fn connect_all<C: Crew>(
        &mut self,
        indices: std::ops::Range<usize>,
        in_flight: usize,
        limit: Duration,
        crew: &mut C,
        settled: impl Fn(&C) -> usize,
        mut progress: impl FnMut(usize),
    ) -> Result<()> {
        let started = Instant::now();
        let before = settled(crew);
        let (mut next, total) = (indices.start, indices.len());
        loop {
            let done = settled(crew) - before;
            progress(done);
            if done == total {
                return Ok(());
            }
            ensure!(started.elapsed() < limit, "only {done} of {total} connections are ready after {limit:?}");
            while next < indices.end && next - indices.start - done < in_flight {
                self.start(next)?;
                next += 1;
            }
            self.turn(TURN_MAX, crew)?;
        }
    }
}
