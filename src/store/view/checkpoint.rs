//! Checkpoints: dirty owners become rows, in batches, and the mark moves.
//!
//! An owner is copied under its own lock, so commits wait for one owner's encoding at most. Its rows that change in place
//! go into one batch with its head, whatever their number: half of a split bucket in sled could not be replayed. Rows
//! addressed by position (index pages, run pages) go before, 256 at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cells::Cell;
use super::channel::ChannelState;
use super::codec::Writer;
use super::db::{BATCH_ROWS_MAX, Ledger, Row};
use super::user::UserState;
use super::{View, encode_mark, encode_owners, keys};
use crate::store::log::LogMark;
use crate::store::{CredentialHash, Result};
use protocol::ids::ChannelKey;

/// Owners whose rows wait for the next batch.
#[derive(Default)]
struct Pending {
    rows: Vec<Row>,
    channels: Vec<Arc<Cell<ChannelState>>>,
    users: Vec<Arc<Cell<UserState>>>,
    names: Vec<ChannelKey>,
    aliases: Vec<String>,
    tokens: Vec<CredentialHash>,
}

impl View {
    /// Writes everything that is dirty now and, when `mark` is given, moves the mark there after all of it is synced.
    /// `mark` must have been taken after its last record was applied and before this call.
    ///
    /// # Errors
    /// I/O or damage. The view takes no further changes then: what memory holds is still right, a new start replays.
    pub fn checkpoint(&self, mark: Option<LogMark>) -> Result<()> {
        let mut ledger = self.ledger.lock();
        let done = self.write_dirty(&mut ledger).and_then(|()| self.move_mark(&mut ledger, mark));
        if done.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        done
    }

    fn move_mark(&self, ledger: &mut Ledger, mark: Option<LogMark>) -> Result<()> {
        let Some(mark) = mark else { return Ok(()) };
        self.db.sync()?;
        ledger.apply(&self.db, vec![(keys::MARK.to_vec(), Some(encode_mark(&mark)))])?;
        self.db.sync()
    }

    fn write_dirty(&self, ledger: &mut Ledger) -> Result<()> {
        let mut server = self.server.lock().snapshot();
        server.extend(self.registers.write().snapshot());
        ledger.apply(&self.db, server)?;
        self.files.write(&self.db, ledger)?;
        let (mut users, mut channels) = (self.users.take_dirty(), self.channels.take_dirty());
        let done = self.write_owners(ledger, &mut users, &mut channels);
        if done.is_err() {
            // They stay in memory: what they hold may be nowhere else.
            self.users.put_back(users);
            self.channels.put_back(channels);
            return done;
        }
        // What was kept because it had changed may be more than the budget.
        drop((users, channels));
        self.users.trim();
        self.channels.trim();
        Ok(())
    }

    fn write_owners(
        &self,
        ledger: &mut Ledger,
        users: &mut [Arc<Cell<UserState>>],
        channels: &mut [Arc<Cell<ChannelState>>],
    ) -> Result<()> {
        // In key order sled's nodes are touched once each.
        users.sort_unstable_by(|a, b| a.id.as_str().len().cmp(&b.id.as_str().len()).then_with(|| a.id.cmp(&b.id)));
        channels.sort_unstable_by_key(|cell| cell.id);
        let mut pending = Pending::default();
        for cell in users.iter() {
            let compacted = self.users.with_dirty(cell, false, |user| user.compact(&self.db));
            compacted.transpose()?;
            let taken =
                self.users.with_dirty(cell, true, |user| (user.snapshot(), std::mem::take(&mut user.tokens_dirty)));
            let Some((rows, tokens)) = taken else { continue };
            pending.rows.extend(rows);
            for hash in &tokens {
                let owners = self.tokens.get(hash).unwrap_or_default();
                let row = if owners.is_empty() { None } else { Some(encode_owners(&owners)) };
                pending.rows.push((keys::named(keys::TOKEN, hash), row));
            }
            pending.tokens.extend(tokens);
            pending.users.push(Arc::clone(cell));
            if pending.rows.len() >= BATCH_ROWS_MAX {
                self.flush(ledger, &mut pending)?;
            }
        }
        for cell in channels.iter() {
            let compacted = self.channels.with_dirty(cell, false, |state| state.compact(&self.db));
            compacted.transpose()?;
            let gone = self.make_runs(ledger, cell)?;
            let taken = self.channels.with_dirty(cell, true, |state| {
                let named = std::mem::take(&mut state.names_dirty);
                let name = if named { state.key().cloned() } else { None };
                (state.snapshot(), name, std::mem::take(&mut state.aliases_dirty))
            });
            let Some((snapshot, name, aliases)) = taken else { continue };
            ledger.apply_in_batches(&self.db, snapshot.early)?;
            pending.rows.extend(snapshot.together);
            if let Some(name) = name {
                let mut w = Writer::row();
                w.u32(cell.id);
                pending.rows.push((keys::name(&name), Some(w.finish())));
                pending.names.push(name);
            }
            for alias in &aliases {
                if let Some((no, version)) = self.aliases.get(alias) {
                    let mut w = Writer::row();
                    w.varint(u64::from(no));
                    w.varint(version);
                    pending.rows.push((keys::named(keys::ALIAS, alias.as_bytes()), Some(w.finish())));
                }
            }
            pending.aliases.extend(aliases);
            pending.channels.push(Arc::clone(cell));
            if pending.rows.len() >= BATCH_ROWS_MAX || !gone.is_empty() {
                self.flush(ledger, &mut pending)?;
                ledger.apply_in_batches(&self.db, gone)?;
            }
        }
        self.flush(ledger, &mut pending)
    }

    /// Applies what waits as one batch; then the owners may drop what is clean.
    fn flush(&self, ledger: &mut Ledger, pending: &mut Pending) -> Result<()> {
        let mut done = std::mem::take(pending);
        ledger.apply(&self.db, std::mem::take(&mut done.rows))?;
        for cell in done.channels {
            self.channels.with_dirty(&cell, false, ChannelState::settle);
        }
        for cell in done.users {
            self.users.with_dirty(&cell, false, UserState::settle);
        }
        done.names.iter().for_each(|name| self.names.unpin(name));
        done.aliases.iter().for_each(|alias| self.aliases.unpin(alias));
        done.tokens.iter().for_each(|token| self.tokens.unpin(token));
        Ok(())
    }

    /// Moves old fingerprints of a channel into runs. Only checkpoints change runs, and the rows are in sled before the
    /// channel names them. Returns the rows of merged runs, to be taken away once the head is written.
    fn make_runs(&self, ledger: &mut Ledger, cell: &Arc<Cell<ChannelState>>) -> Result<Vec<Row>> {
        let plan = self.channels.with_dirty(cell, false, |state| state.wants_run().then(|| state.runs().plan()));
        let Some(mut plan) = plan.flatten() else { return Ok(Vec::new()) };
        loop {
            let next = self.channels.with_dirty(cell, false, |state| state.next_run(&self.db, plan.covered));
            let Some(fingerprints) = next.transpose()?.flatten() else { break };
            plan.add(&self.db, ledger, cell.id, &fingerprints)?;
        }
        self.channels.with_dirty(cell, false, |state| state.install_runs(&plan));
        Ok(plan.gone(cell.id))
    }
}
