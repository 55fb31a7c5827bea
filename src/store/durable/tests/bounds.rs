//! Memory of the view: what the bound in bytes means, and that answers beyond it are the same.

use super::*;

#[test]
fn memory_stays_within_its_bound_and_idempotency_is_right_beyond_it() {
    let dir = tempfile::tempdir().expect("dir");
    let max = 1 << 20;
    let bounded = || StoreOptions { cache_bytes_max: max, ..options(dir.path()) };
    let (store, _) = DurableStore::open(bounded()).expect("store opens");
    let channels: Vec<ChannelNo> = (0..400).map(|n| group(&store, &format!("team{n}"))).collect();
    let mut most = 0;
    for &channel in &channels {
        send(&store, channel, 1, 130, &|_| "a".into());
        most = most.max(store.stats().cache_bytes);
    }
    // Rows that no checkpoint holds cannot go, so one is taken where a lot would pass twice the bound.
    assert!(most > max && most <= 2 * max + (64 << 10), "{most} bytes in memory, {max} allowed");
    assert!(store.stats().checkpoints > 0);
    store.checkpoint().expect("checkpoint");
    let mut most = 0;
    for round in 0..3 {
        for &channel in &channels {
            store.warm(channel).expect("warm");
            let stats = store.stats();
            assert_eq!(stats.cache_bytes_max, max);
            if round > 0 {
                most = most.max(stats.cache_bytes);
            }
            let asked = ClientMsgNo::new(&format!("a-{}", 1 + (channel.0 * 7) % 130)).expect("client_msg_no");
            let found = store.message_by_client_msg_no(channel, &uid("a"), &asked).expect("read").expect("stored");
            assert_eq!(found.client_msg_no, asked);
        }
    }
    assert!(most <= max + max / 8, "{most} bytes in memory, {max} allowed");
}

#[test]
fn filters_of_a_huge_channel_take_their_share_and_no_more() {
    let dir = tempfile::tempdir().expect("dir");
    // An eighth of it holds 8 of the 18 filter pages below.
    let max = 256 << 10;
    let bounded = || StoreOptions { cache_bytes_max: max, ..options(dir.path()) };
    let (store, _) = DurableStore::open(bounded()).expect("store opens");
    let team = group(&store, "team");
    let last = 45_000;
    send(&store, team, 1, last, &|_| "a".into());
    store.checkpoint().expect("checkpoint");
    drop(store);
    let (store, _) = DurableStore::open(bounded()).expect("store opens");
    store.warm(team).expect("warm");
    let before = store.stats().cache_bytes;
    for seq in (1..=last).step_by(97) {
        let asked = ClientMsgNo::new(&format!("a-{seq}")).expect("client_msg_no");
        let found = store.message_by_client_msg_no(team, &uid("a"), &asked).expect("read").expect("stored");
        assert_eq!(found.message_seq.get(), seq);
        let absent = ClientMsgNo::new(&format!("new-{seq}")).expect("client_msg_no");
        assert_eq!(store.message_by_client_msg_no(team, &uid("a"), &absent).expect("read"), None);
    }
    assert!(store.stats().cache_bytes <= before + max / 8, "{} bytes, {before} before", store.stats().cache_bytes);
}
