//! What a WuKongIM of version 2 lists of itself: users, their devices, channels, and who is on which list.
//!
//! Its API port serves these routes below `/cluster`, on one node as on many, under the manager token of all others (v2.2.5,
//! `pkg/cluster/cluster/server_api.go`). v1 and v3 have none of them. Owns their shapes and pages; refuses to know what is done
//! with them.

use std::collections::HashSet;

use anyhow::{Context, bail};
use protocol::ids::{ChannelKey, ChannelType};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::source::{PAGE, Source};

/// Rows asked for at most, where one instant fills whole pages.
const ROWS_MAX: usize = 1 << 20;

/// A page of rows, newest first.
#[derive(Deserialize)]
struct ListPage<T> {
    #[serde(default)]
    more: u8,
    data: Option<Vec<T>>,
}

/// A row of a page.
trait Row: DeserializeOwned {
    /// Unix nanoseconds; pages go on behind them.
    fn created_at(&self) -> i64;
    /// What tells it from other rows.
    fn name(&self) -> String;
}

#[derive(Debug, Deserialize)]
struct ListedUser {
    uid: String,
    #[serde(default)]
    created_at: i64,
}

/// A user's device: its token in the clear.
#[derive(Deserialize)]
pub(super) struct Device {
    pub uid: String,
    #[serde(default)]
    pub token: String,
    pub device_flag: u64,
    #[serde(default)]
    pub device_level: u8,
    #[serde(default)]
    created_at: i64,
}

/// A channel that a back end made. `send_ban`, `large` and `allow_stranger` are not told.
#[derive(Debug, Deserialize)]
pub(super) struct ListedChannel {
    pub channel_id: String,
    pub channel_type: u8,
    #[serde(default)]
    pub ban: u8,
    #[serde(default)]
    pub disband: u8,
    #[serde(default)]
    created_at: i64,
}

/// A conversation as it is stored, at most some minutes behind.
#[derive(Debug, Deserialize)]
pub(super) struct StoredRow {
    /// 0: of messages; others: of commands.
    #[serde(rename = "type", default)]
    pub kind: u8,
    /// The canonical id.
    pub channel_id: String,
    pub channel_type: u8,
    #[serde(default)]
    pub readed_to_msg_seq: u64,
}

impl Row for ListedUser {
    fn created_at(&self) -> i64 {
        self.created_at
    }

    fn name(&self) -> String {
        self.uid.clone()
    }
}

impl Row for Device {
    fn created_at(&self) -> i64 {
        self.created_at
    }

    fn name(&self) -> String {
        format!("{} {}", self.device_flag, self.uid)
    }
}

impl Row for ListedChannel {
    fn created_at(&self) -> i64 {
        self.created_at
    }

    fn name(&self) -> String {
        format!("{} {}", self.channel_type, self.channel_id)
    }
}

impl Source {
    /// Whether this version lists itself, and lets the caller see it.
    ///
    /// # Errors
    /// No answer, or none of the reference's shape.
    pub(super) fn has_catalogue(&self) -> anyhow::Result<bool> {
        Ok(self.asked_if_there::<ListPage<ListedUser>>("GET", "/cluster/users?limit=1", None)?.is_some())
    }

    /// Every user who ever got a token.
    ///
    /// # Errors
    /// As above.
    pub(super) fn listed_users(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.listed::<ListedUser>("/cluster/users")?.into_iter().map(|user| user.uid).collect())
    }

    /// Every device that ever got a token.
    ///
    /// # Errors
    /// As above.
    pub(super) fn devices(&self) -> anyhow::Result<Vec<Device>> {
        self.listed("/cluster/devices")
    }

    /// Every channel that a back end made.
    ///
    /// # Errors
    /// As above.
    pub(super) fn listed_channels(&self) -> anyhow::Result<Vec<ListedChannel>> {
        self.listed("/cluster/channels")
    }

    /// The members of a channel; `None`: the server does not tell.
    ///
    /// # Errors
    /// As above.
    pub(super) fn subscribers(&self, key: &ChannelKey) -> anyhow::Result<Option<Vec<String>>> {
        self.on_list(key.channel_id(), key.channel_type(), "subscribers")
    }

    /// Who is on the deny list of a channel, or of a user (type person, the bare uid). `None`: the server does not tell.
    ///
    /// # Errors
    /// As above.
    pub(super) fn denied(&self, id: &str, channel_type: ChannelType) -> anyhow::Result<Option<Vec<String>>> {
        self.on_list(id, channel_type, "denylist")
    }

    /// Every stored conversation of a user, also those that `/conversation/sync` leaves out.
    ///
    /// # Errors
    /// As above.
    pub(super) fn stored_rows(&self, uid: &str) -> anyhow::Result<Vec<StoredRow>> {
        // A second page of one user's rows repeats rows of the first, so everything is asked for at once.
        let path = format!("/cluster/conversations?uid={}&limit={ROWS_MAX}", escaped(uid));
        Ok(self.asked::<ListPage<StoredRow>>("GET", &path, None)?.data.unwrap_or_default())
    }

    fn on_list(&self, id: &str, channel_type: ChannelType, list: &str) -> anyhow::Result<Option<Vec<String>>> {
        let path = format!("/cluster/channels/{}/{}/{list}", escaped(id), channel_type.to_wire());
        Ok(self.asked_if_there::<Option<Vec<String>>>("GET", &path, None)?.map(Option::unwrap_or_default))
    }

    /// Reads all pages. They are cut by time of creation alone, so each begins with the last instant of the one before.
    fn listed<T: Row>(&self, path: &str) -> anyhow::Result<Vec<T>> {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        let (mut before, mut limit) = (0, PAGE);
        loop {
            let asked = format!("{path}?limit={limit}&offset_created_at={before}");
            let page: ListPage<T> = self.asked("GET", &asked, None)?;
            let rows = page.data.unwrap_or_default();
            let oldest = rows.iter().map(Row::created_at).min();
            let known = found.len();
            found.extend(rows.into_iter().filter(|row| seen.insert(row.name())));
            let Some(oldest) = oldest.filter(|_| page.more != 0) else { return Ok(found) };
            if found.len() > known {
                before = oldest.checked_add(1).context("created_at is beyond all times")?;
            } else if limit < ROWS_MAX {
                limit *= 2;
            } else {
                bail!("{path}: more than {ROWS_MAX} rows of one instant");
            }
        }
    }
}

/// A segment of a path, or a value of a query.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_for_paths_and_queries() {
        for (text, expected) in
            [("a-b_c.d~1", "a-b_c.d~1"), ("a b+c", "a%20b%2Bc"), ("群|/?", "%E7%BE%A4%7C%2F%3F"), ("", "")]
        {
            assert_eq!(escaped(text), expected);
        }
    }
}
