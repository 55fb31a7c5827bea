//! Owners in memory: a sharded map of cells, each an owner's rows under a lock of its own, loaded when first asked for.
//!
//! Invariants: a dirty owner is on the dirty list, and whoever holds a cell's `Arc` keeps it in the map; so a cell is
//! evicted only when it is clean and its rows are in the view. Clean cells go by the clock when the budget is passed.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use foldhash::HashMap;
use foldhash::fast::FixedState;
use parking_lot::Mutex;
use std::hash::BuildHasher;

use super::Context;
use crate::store::Result;

const SHARDS: usize = 256;
/// Cells the clock looks at per cell that was added, or grew by [`GROWTH_BYTES`], while the budget is passed: two rounds over
/// all cells, after which every idle one is gone, take a thirty-second of their number.
const LOOKED_AT: usize = 64;
/// Growth of a cell that counts as another cell.
const GROWTH_BYTES: usize = 4_096;

/// Something whose rows are written together.
pub trait Owner: Sized + Send {
    type Id: Hash + Eq + Clone + Send + Debug;
    /// Reads its head from the view; an owner that is not there is an empty one.
    fn load(ctx: &Context<'_>, id: &Self::Id) -> Result<Self>;
    /// Whether it holds changes that no snapshot took.
    fn is_dirty(&self) -> bool;
    /// About how many bytes of memory it takes.
    fn weight(&self) -> usize;
}

/// Bytes that cells of all kinds share.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    pub fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max: usize::try_from(max).unwrap_or(usize::MAX) })
    }

    fn is_passed(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.max
    }

    /// Bytes in use by the owners' own count, and how many may be.
    pub fn bytes(&self) -> (usize, usize) {
        (self.used.load(Ordering::Relaxed), self.max)
    }
}

/// One owner.
#[derive(Debug)]
pub struct Cell<O: Owner> {
    pub id: O::Id,
    slot: Mutex<Slot<O>>,
    weight: AtomicUsize,
    touched: AtomicBool,
}

#[derive(Debug)]
struct Slot<O> {
    owner: Option<O>,
    /// On the dirty list.
    listed: bool,
}

type Shard<O> = Mutex<HashMap<<O as Owner>::Id, Arc<Cell<O>>>>;

/// All owners of a kind.
#[derive(Debug)]
pub struct Cells<O: Owner> {
    shards: Vec<Shard<O>>,
    hasher: FixedState,
    dirty: Mutex<Vec<Arc<Cell<O>>>>,
    budget: Arc<Budget>,
    hand: AtomicUsize,
    /// Cells that may be looked at: earned by what is added, spent by the clock.
    credit: AtomicUsize,
}

impl<O: Owner> Cells<O> {
    pub fn new(budget: Arc<Budget>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: FixedState::default(),
            dirty: Mutex::default(),
            budget,
            hand: AtomicUsize::new(0),
            credit: AtomicUsize::new(0),
        }
    }

    fn shard(&self, id: &O::Id) -> &Shard<O> {
        &self.shards[self.hasher.hash_one(id) as usize % SHARDS]
    }

    fn cell(&self, id: &O::Id) -> Arc<Cell<O>> {
        let mut shard = self.shard(id).lock();
        if let Some(cell) = shard.get(id) {
            if !cell.touched.load(Ordering::Relaxed) {
                cell.touched.store(true, Ordering::Relaxed);
            }
            return Arc::clone(cell);
        }
        let cell = Arc::new(Cell {
            id: id.clone(),
            slot: Mutex::new(Slot { owner: None, listed: false }),
            weight: AtomicUsize::new(0),
            touched: AtomicBool::new(true),
        });
        shard.insert(id.clone(), Arc::clone(&cell));
        drop(shard);
        self.evict(LOOKED_AT);
        cell
    }

    /// Keeps the owner in memory, once it is there, for as long as the result lives.
    pub fn hold(&self, id: &O::Id) -> Arc<Cell<O>> {
        self.cell(id)
    }

    /// Moves the clock on when the budget is passed, over as many cells as were earned.
    fn evict(&self, earned: usize) {
        if !self.budget.is_passed() {
            return;
        }
        let mut credit = self.credit.fetch_add(earned, Ordering::Relaxed) + earned;
        for _ in 0..SHARDS {
            let cost = self.shards[self.hand.load(Ordering::Relaxed) % SHARDS].lock().len().max(1);
            if credit < cost {
                return;
            }
            // Another thread may spend the same credit meanwhile; then the clock goes a little further than was earned.
            credit -= cost;
            self.credit.store(credit, Ordering::Relaxed);
            self.turn();
            if !self.budget.is_passed() {
                return;
            }
        }
    }

    /// Moves the clock on until the budget is kept, twice around at most: for when many cells have become clean at once.
    pub fn trim(&self) {
        let mut turns = 0..2 * SHARDS;
        while self.budget.is_passed() && turns.next().is_some() {
            self.turn();
        }
    }

    /// Lets the idle cells of the next shard go.
    fn turn(&self) {
        let hand = self.hand.fetch_add(1, Ordering::Relaxed);
        self.shards[hand % SHARDS].lock().retain(|_, cell| {
            // Arcs are made under this lock only, so a count of one means that nobody holds the cell or will.
            let keep = cell.touched.swap(false, Ordering::Relaxed) || Arc::strong_count(cell) > 1;
            if !keep {
                self.budget.used.fetch_sub(cell.weight.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            keep
        });
    }

    /// Runs on the owner, loading it first when it is not in memory. What the call makes dirty is on the dirty list.
    pub fn with<T>(&self, ctx: &Context<'_>, id: &O::Id, run: impl FnOnce(&mut O) -> Result<T>) -> Result<T> {
        let cell = self.cell(id);
        let mut slot = cell.slot.lock();
        if slot.owner.is_none() {
            slot.owner = Some(O::load(ctx, id)?);
        }
        let Slot { owner: Some(owner), listed } = &mut *slot else { unreachable!("loaded above") };
        let result = run(owner);
        let growth = self.weigh(&cell, owner.weight());
        if owner.is_dirty() && !*listed {
            *listed = true;
            self.dirty.lock().push(Arc::clone(&cell));
        }
        drop(slot);
        if growth >= GROWTH_BYTES {
            self.evict(LOOKED_AT * (growth / GROWTH_BYTES));
        }
        result
    }

    /// Runs on the owner when it is in memory and nobody else is at it. Never waits and never reads.
    pub fn with_hot<T>(&self, id: &O::Id, run: impl FnOnce(&O) -> T) -> Option<T> {
        let cell = Arc::clone(self.shard(id).lock().get(id)?);
        let slot = cell.slot.try_lock()?;
        slot.owner.as_ref().map(run)
    }

    /// Counts the cell at its weight now; by how many bytes it has grown.
    fn weigh(&self, cell: &Cell<O>, weight: usize) -> usize {
        let before = cell.weight.swap(weight, Ordering::Relaxed);
        if weight >= before {
            self.budget.used.fetch_add(weight - before, Ordering::Relaxed);
        } else {
            self.budget.used.fetch_sub(before - weight, Ordering::Relaxed);
        }
        weight.saturating_sub(before)
    }

    /// How many owners are dirty.
    pub fn dirty_count(&self) -> usize {
        self.dirty.lock().len()
    }

    /// Takes the dirty list.
    pub fn take_dirty(&self) -> Vec<Arc<Cell<O>>> {
        std::mem::take(&mut *self.dirty.lock())
    }

    /// Puts cells back that were taken and not written.
    pub fn put_back(&self, cells: impl IntoIterator<Item = Arc<Cell<O>>>) {
        self.dirty.lock().extend(cells);
    }

    /// Runs on a dirty owner and takes it off the list when `last`, so that the next change lists it again.
    pub fn with_dirty<T>(&self, cell: &Arc<Cell<O>>, last: bool, run: impl FnOnce(&mut O) -> T) -> Option<T> {
        let mut slot = cell.slot.lock();
        let result = slot.owner.as_mut().map(run);
        if last {
            slot.listed = false;
        }
        let weight = slot.owner.as_ref().map_or(0, Owner::weight);
        self.weigh(cell, weight);
        result
    }
}
