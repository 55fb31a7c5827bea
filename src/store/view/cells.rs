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
}

impl<O: Owner> Cells<O> {
    pub fn new(budget: Arc<Budget>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: FixedState::default(),
            dirty: Mutex::default(),
            budget,
            hand: AtomicUsize::new(0),
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
        self.evict();
        cell
    }

    /// Keeps the owner in memory, once it is there, for as long as the result lives.
    pub fn hold(&self, id: &O::Id) -> Arc<Cell<O>> {
        self.cell(id)
    }

    /// One turn of the clock over one shard, when the budget is passed.
    fn evict(&self) {
        if !self.budget.is_passed() {
            return;
        }
        let hand = self.hand.fetch_add(1, Ordering::Relaxed);
        // A shard is walked every eighth time: each walk frees many, and dirty cells are walked in vain.
        if !hand.is_multiple_of(8) {
            return;
        }
        let mut shard = self.shards[hand / 8 % SHARDS].lock();
        shard.retain(|_, cell| {
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
        self.weigh(&cell, owner.weight());
        if owner.is_dirty() && !*listed {
            *listed = true;
            self.dirty.lock().push(Arc::clone(&cell));
        }
        result
    }

    /// Runs on the owner when it is in memory and nobody else is at it. Never waits and never reads.
    pub fn with_hot<T>(&self, id: &O::Id, run: impl FnOnce(&O) -> T) -> Option<T> {
        let cell = Arc::clone(self.shard(id).lock().get(id)?);
        let slot = cell.slot.try_lock()?;
        slot.owner.as_ref().map(run)
    }

    fn weigh(&self, cell: &Cell<O>, weight: usize) {
        let before = cell.weight.swap(weight, Ordering::Relaxed);
        if weight >= before {
            self.budget.used.fetch_add(weight - before, Ordering::Relaxed);
        } else {
            self.budget.used.fetch_sub(before - weight, Ordering::Relaxed);
        }
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
