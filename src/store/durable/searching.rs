//! What the search index reads the durable store through.

use protocol::ids::Version;

use super::Inner;
use crate::domain::message::Message;
use crate::store::log::{LogMark, LotEntry};
use crate::store::search::Source;
use crate::store::{ChannelNo, Record, Result, SeqRange, StoreError};

impl Source for Inner {
    fn head_seq(&self, channel: ChannelNo) -> Result<u64> {
        Ok(self.view().head_seq(channel)?.unwrap_or(0))
    }

    fn messages(&self, channel: ChannelNo, range: SeqRange) -> Result<Vec<Message>> {
        self.view().messages(channel, range)
    }

    fn mark(&self) -> LogMark {
        *self.applied.lock()
    }

    fn changed_after(&self, since: Version) -> Result<Vec<ChannelNo>> {
        // Without a largest number nothing is too many.
        Ok(self.view().recently_changed(since, usize::MAX).unwrap_or_default())
    }

    fn edits_after(&self, mark: &LogMark, until: Version, tell: &mut dyn FnMut(ChannelNo, u64, Version)) -> Result<()> {
        let mut reached = mark.version;
        for lot in self.reader.scan_behind(mark) {
            if reached >= until {
                break;
            }
            let lot = lot?;
            reached = lot.last_version;
            for entry in &lot.records {
                if let LotEntry::Record { version, record: Record::MessageEdited { channel, seq, .. }, .. } = entry {
                    tell(*channel, *seq, *version);
                }
            }
        }
        if reached < until {
            return Err(StoreError::damaged("read edits from the log", "the mark lies behind the log's end"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, MessageSeq, Uid};

    use crate::domain::content::fold;
    use crate::domain::message::MessageFlags;
    use crate::store::durable::{DurableStore, StoreOptions};
    use crate::store::search::SearchOptions;
    use crate::store::{ChannelNo, Commit, MessageRecord, Record, SearchQuery, Store};

    fn open(dir: &Path, on: bool) -> DurableStore {
        let search = SearchOptions { on, gather: Duration::ZERO, ..SearchOptions::default() };
        let checkpoint_interval = Duration::from_secs(3_600);
        DurableStore::open(StoreOptions { search, checkpoint_interval, ..StoreOptions::new(dir) }).expect("opens").0
    }

    fn commit(store: &DurableStore, records: impl IntoIterator<Item = Record>) {
        let lot: Vec<Commit> = records.into_iter().map(Commit::from).collect();
        store.commit(&lot, &mut |_| {}).expect("commit");
    }

    fn channel(store: &DurableStore) -> ChannelNo {
        let channel = store.reserve_channel_no();
        let key = ChannelKey::named("team", ChannelType::Group).expect("id");
        commit(store, [Record::ChannelCreated { channel, key }]);
        channel
    }

    fn message(channel: ChannelNo, seq: u64, text: &str) -> Record {
        Record::Message(MessageRecord {
            channel,
            message_seq: MessageSeq::new(seq).expect("seq"),
            from_uid: Uid::from_stored("u"),
            client_msg_no: ClientMsgNo::from_stored(&seq.to_string()),
            flags: MessageFlags::default(),
            setting: 0,
            topic: String::new(),
            expire_s: 0,
            payload: Bytes::from(text.to_owned()),
            extras: None,
        })
    }

    fn edited(channel: ChannelNo, seq: u64, text: &str) -> Record {
        Record::MessageEdited { channel, seq, by: None, payload: Bytes::from(text.to_owned()), extras: None }
    }

    fn seqs(store: &DurableStore, channel: ChannelNo, text: &str) -> Vec<u64> {
        let query = SearchQuery { pattern: fold(text), first: 1, last: u64::MAX, limit: 100, scan_max: 10_000 };
        let found = store.search(channel, &query).expect("search");
        found.messages.iter().map(|message| message.message_seq.get()).collect()
    }

    fn settle(store: &DurableStore, indexed: u64) {
        let started = Instant::now();
        loop {
            let stats = store.search_stats();
            if stats.ready && stats.channels_waiting == 0 && stats.messages_indexed >= indexed {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{stats:?}");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_committed_message_is_found_by_its_present_text_also_after_a_crash() {
        let dir = tempfile::tempdir().expect("dir");
        let store = open(dir.path(), true);
        let team = channel(&store);
        for seq in 1..=200 {
            commit(&store, [message(team, seq, &format!("Sayı {seq}: İYİ GÜNLER 100%"))]);
            assert_eq!(seqs(&store, team, &format!("sayı {seq}:")), [seq]);
        }
        settle(&store, 192);
        commit(&store, [edited(team, 9, "düzeltildi"), Record::MessageRevoked { channel: team, seq: 10, by: None }]);
        let check = |store: &DurableStore| {
            assert_eq!(seqs(store, team, "DÜZELTİLDİ"), [9]);
            assert!(seqs(store, team, "sayı 9:").is_empty() && seqs(store, team, "sayı 10:").is_empty());
            assert_eq!(seqs(store, team, "günler 100%").len(), 100);
            assert_eq!(seqs(store, team, "sayı 77: iyi"), [77]);
        };
        check(&store);
        store.abandon();
        let store = open(dir.path(), true);
        check(&store);
        settle(&store, 0);
        check(&store);
        commit(&store, [edited(team, 70, "yeniden")]);
        drop(store);
        // Without an index, then with a new one.
        let store = open(dir.path(), false);
        check(&store);
        assert_eq!(seqs(&store, team, "yeniden"), [70]);
        drop(store);
        assert!(!dir.path().join("search").exists());
        let store = open(dir.path(), true);
        check(&store);
        settle(&store, 192);
        check(&store);
        assert_eq!(seqs(&store, team, "yeniden"), [70]);
    }

    #[test]
    fn what_the_index_reads_for_itself_is_not_counted() {
        let dir = tempfile::tempdir().expect("dir");
        let store = open(dir.path(), true);
        let team = channel(&store);
        store.warm(team).expect("warm");
        // The sender's rows are looked for once.
        commit(&store, [message(team, 1, "first")]);
        let before = store.read_counts();
        commit(&store, (2..=640).map(|seq| message(team, seq, &format!("text {seq}"))));
        settle(&store, 640);
        assert_eq!(store.read_counts(), before);
        assert_eq!(seqs(&store, team, "text 333"), [333]);
        assert_eq!(store.read_counts().log - before.log, 1);
    }
}
