//! Commands about messages, people and groups: what is typed, read into what is asked for.

use std::borrow::Cow;

use anyhow::{Context, Result, bail};
use protocol::native::{self, ClientFrame, Reaction, ServerFrame};

use super::{Room, name_of};
use crate::client::Channel;
use crate::screen::tame;

/// Users a `/who N` names.
const READERS_SHOWN: u32 = 50;
/// Messages a `/search` shows.
const FOUND_SHOWN: u32 = 20;

/// Groups whose names are asked for at the start.
const NAMES_ASKED_MAX: usize = 100;

/// A command of this file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Feature {
    Reply(u64, String),
    Edit(u64, String),
    Revoke(u64),
    React(u64, Reaction),
    Search(String),
    Readers(u64),
    Flags { pinned: Option<bool>, muted: Option<bool>, accepted: Option<bool> },
    Block(String, bool),
    Group(String, Vec<String>),
    Members,
    Invite(Vec<String>),
    Expel(Vec<String>),
    Leave,
}

fn number(text: &str, usage: &'static str) -> Result<u64> {
    text.parse().ok().filter(|n| *n > 0).context(usage)
}

fn number_and_text(rest: &str, usage: &'static str) -> Result<(u64, String)> {
    let (n, text) = rest.split_once(char::is_whitespace).context(usage)?;
    let text = text.trim();
    if text.is_empty() {
        bail!(usage);
    }
    Ok((number(n, usage)?, text.to_owned()))
}

fn one(rest: &str, usage: &'static str) -> Result<String> {
    let mut words = rest.split_whitespace();
    match (words.next(), words.next()) {
        (Some(word), None) => Ok(word.to_owned()),
        _ => bail!(usage),
    }
}

fn some(rest: &str, usage: &'static str) -> Result<Vec<String>> {
    let words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
    if words.is_empty() { bail!(usage) } else { Ok(words) }
}

impl Feature {
    /// Reads a command; `None`: it is none of this file, an error: it is, but wrongly used.
    pub(super) fn read(word: &str, rest: &str) -> Option<Result<Self>> {
        let flags = |pinned, muted, accepted| Ok(Self::Flags { pinned, muted, accepted });
        let react = |usage: &'static str, reaction| number(rest, usage).map(|n| Self::React(n, reaction));
        Some(match (word, rest) {
            ("reply", _) => number_and_text(rest, "/reply N TEXT").map(|(n, text)| Self::Reply(n, text)),
            ("edit", _) => number_and_text(rest, "/edit N TEXT").map(|(n, text)| Self::Edit(n, text)),
            ("revoke", _) => number(rest, "/revoke N").map(Self::Revoke),
            ("like", _) => react("/like N", Reaction::Like),
            ("dislike", _) => react("/dislike N", Reaction::Dislike),
            ("unlike", _) => react("/unlike N", Reaction::None),
            ("search", "") => Err(anyhow::anyhow!("/search TEXT")),
            ("search", text) => Ok(Self::Search(text.to_owned())),
            ("who", "") => return None,
            ("who", _) => number(rest, "/who N: who has read message N").map(Self::Readers),
            ("pin", "") => flags(Some(true), None, None),
            ("unpin", "") => flags(Some(false), None, None),
            ("mute", "") => flags(None, Some(true), None),
            ("unmute", "") => flags(None, Some(false), None),
            ("accept", "") => flags(None, None, Some(true)),
            ("block", _) => one(rest, "/block WHO").map(|uid| Self::Block(uid, true)),
            ("unblock", _) => one(rest, "/unblock WHO").map(|uid| Self::Block(uid, false)),
            ("group", _) => some(rest, "/group NAME [WHO…]").map(|mut words| {
                let name = words.remove(0);
                Self::Group(name, words)
            }),
            ("members", "") => Ok(Self::Members),
            ("invite", _) => some(rest, "/invite WHO…").map(Self::Invite),
            ("expel", _) => some(rest, "/expel WHO…").map(Self::Expel),
            ("leave", "") => Ok(Self::Leave),
            _ => return None,
        })
    }
}

/// A channel as frames name it.
fn named(channel: &Channel) -> (Cow<'static, str>, u8) {
    (Cow::Owned(channel.id.clone()), channel.kind)
}

fn owned(uids: Vec<String>) -> Vec<Cow<'static, str>> {
    uids.into_iter().map(Cow::Owned).collect()
}

impl Room {
    /// Does what a command of this file says.
    pub(super) async fn feature(&mut self, feature: Feature) -> Result<()> {
        match feature {
            Feature::Block(uid, blocked) => return self.block(uid, blocked).await,
            Feature::Group(name, members) => return self.make_group(name, members).await,
            _ => {}
        }
        let channel = self.here()?;
        let (channel_id, channel_type) = named(&channel);
        match feature {
            Feature::Reply(message_seq, text) => {
                let reply_to = self.message_id(&channel, message_seq).await?;
                return self.say(&text, reply_to).await;
            }
            Feature::Search(text) => return self.search(channel, text).await,
            Feature::Readers(message_seq) => return self.readers(channel, message_seq).await,
            Feature::Members => return self.members(channel).await,
            Feature::Edit(message_seq, text) => {
                let edit = move |client_seq| {
                    ClientFrame::Edit(native::Edit {
                        client_seq,
                        channel_id,
                        channel_type,
                        message_seq,
                        payload: Cow::Owned(text.into_bytes()),
                        reply_to: 0,
                        mentions: Vec::new(),
                        mention_all: false,
                        files: Vec::new(),
                    })
                };
                self.ask(edit).await?;
                self.note(&format!("message {message_seq} is edited"));
            }
            Feature::Revoke(message_seq) => {
                let revoke = move |client_seq| {
                    ClientFrame::Revoke(native::Revoke { client_seq, channel_id, channel_type, message_seq })
                };
                self.ask(revoke).await?;
                self.note(&format!("message {message_seq} is taken back"));
            }
            Feature::React(message_seq, reaction) => {
                let react = move |client_seq| {
                    ClientFrame::React(native::React { client_seq, channel_id, channel_type, message_seq, reaction })
                };
                self.ask(react).await?;
            }
            Feature::Flags { pinned, muted, accepted } => {
                let flags = move |client_seq| {
                    ClientFrame::Flags(native::Flags { client_seq, channel_id, channel_type, pinned, muted, accepted })
                };
                self.ask(flags).await?;
                let conversation = self.conversations.entry(channel.clone()).or_default();
                conversation.pinned = pinned.unwrap_or(conversation.pinned);
                conversation.muted = muted.unwrap_or(conversation.muted);
                conversation.request &= accepted != Some(true);
                self.note(&format!("done for {}", tame(&name_of(&channel))));
            }
            Feature::Invite(uids) => {
                let uids = owned(uids);
                let invite = move |client_seq| {
                    ClientFrame::Invite(native::Invite { client_seq, channel_id, channel_type, uids })
                };
                self.ask(invite).await?;
                self.note("they are in");
            }
            Feature::Expel(uids) => {
                let uids = owned(uids);
                let expel =
                    move |client_seq| ClientFrame::Expel(native::Expel { client_seq, channel_id, channel_type, uids });
                self.ask(expel).await?;
                self.note("they are out");
            }
            Feature::Leave => {
                let leave =
                    move |client_seq| ClientFrame::Leave(native::Leave { client_seq, channel_id, channel_type });
                self.ask(leave).await?;
                self.conversations.remove(&channel);
                self.current = None;
                self.note(&format!("you left {}", tame(&name_of(&channel))));
            }
            Feature::Block(..) | Feature::Group(..) => {}
        }
        Ok(())
    }

    /// The id of a message people name by its number.
    async fn message_id(&mut self, channel: &Channel, message_seq: u64) -> Result<u64> {
        let (channel_id, channel_type) = named(channel);
        let history = move |client_seq| {
            ClientFrame::History(native::History {
                client_seq,
                channel_id,
                channel_type,
                first_seq: message_seq,
                last_seq: message_seq,
                limit: 1,
                newest_first: false,
            })
        };
        let ServerFrame::Messages(page) = self.ask(history).await? else { bail!("the server answered something else") };
        page.messages.first().map(|item| item.message_id).with_context(|| format!("there is no message {message_seq}"))
    }

    async fn search(&mut self, channel: Channel, text: String) -> Result<()> {
        let (channel_id, channel_type) = named(&channel);
        let search = move |client_seq| {
            ClientFrame::Search(native::Search {
                client_seq,
                channel_id,
                channel_type,
                text: Cow::Owned(text),
                first_seq: 0,
                last_seq: 0,
                limit: FOUND_SHOWN,
                oldest_first: false,
            })
        };
        let ServerFrame::Messages(page) = self.ask(search).await? else { bail!("the server answered something else") };
        for item in page.messages.iter().rev() {
            self.numbered(&channel, item);
        }
        match (page.messages.is_empty(), page.resume) {
            (true, None) => self.note("nobody said that here"),
            (true, Some(_)) => self.note("not in the messages that were looked at"),
            (false, Some(_)) => self.note("there may be more, further up"),
            (false, None) => {}
        }
        Ok(())
    }

    async fn readers(&mut self, channel: Channel, message_seq: u64) -> Result<()> {
        let (channel_id, channel_type) = named(&channel);
        let read_by = move |client_seq| {
            let limit = READERS_SHOWN;
            ClientFrame::ReadBy(native::ReadBy { client_seq, channel_id, channel_type, message_seq, limit })
        };
        let ServerFrame::Readers(readers) = self.ask(read_by).await? else {
            bail!("the server answered something else")
        };
        let more = if readers.more { ", …" } else { "" };
        let who = if readers.uids.is_empty() { "nobody".to_owned() } else { tame(&readers.uids.join(", ")) };
        self.note(&format!("message {message_seq} was read by {who}{more} (of {})", readers.of));
        Ok(())
    }

    async fn block(&mut self, uid: String, blocked: bool) -> Result<()> {
        let relation = move |client_seq| {
            let (uid, blocked) = (Cow::Owned(uid), Some(blocked));
            ClientFrame::Relation(native::Relation { client_seq, uid, contact: None, blocked })
        };
        let ServerFrame::Relations(list) = self.ask(relation).await? else {
            bail!("the server answered something else")
        };
        for item in list.relations {
            let now = if item.blocked { "is blocked" } else { "may write to you" };
            self.note(&format!("{} {now}", tame(&item.uid)));
        }
        Ok(())
    }

    async fn make_group(&mut self, name: String, members: Vec<String>) -> Result<()> {
        let group = move |client_seq| {
            let (icon, description) = (Cow::Borrowed(""), Cow::Borrowed(""));
            let (name, members) = (Cow::Owned(name), owned(members));
            ClientFrame::Group(native::Group { client_seq, name, icon, description, members })
        };
        let ServerFrame::Profile(made) = self.ask(group).await? else { bail!("the server answered something else") };
        let channel = Channel { id: made.channel_id.into_owned(), kind: made.channel_type };
        self.conversations.entry(channel.clone()).or_default().name = Some(made.name.into_owned());
        self.talk_in(channel).await
    }

    /// Asks what the groups of the list are called: sync tells their ids only.
    pub(super) async fn learn_names(&mut self) {
        let nameless = self.conversations.iter().filter(|(channel, known)| channel.kind == 2 && known.name.is_none());
        let nameless: Vec<Channel> = nameless.map(|(channel, _)| channel.clone()).take(NAMES_ASKED_MAX).collect();
        for channel in nameless {
            let (channel_id, channel_type) = named(&channel);
            let profile = move |client_seq| {
                let (name, icon, description) = (None, None, None);
                ClientFrame::Profile(native::Profile { client_seq, channel_id, channel_type, name, icon, description })
            };
            // A group nobody named is called by its id, and so is one whose name is not to be had now.
            if let Ok(ServerFrame::Profile(profile)) = self.ask(profile).await
                && !profile.name.is_empty()
                && let Some(conversation) = self.conversations.get_mut(&channel)
            {
                conversation.name = Some(profile.name.into_owned());
            }
        }
    }

    async fn members(&mut self, channel: Channel) -> Result<()> {
        let (channel_id, channel_type) = named(&channel);
        let members = move |client_seq| {
            ClientFrame::Members(native::Members { client_seq, channel_id, channel_type, skip: 0, limit: 0 })
        };
        let ServerFrame::Members(list) = self.ask(members).await? else { bail!("the server answered something else") };
        let shown = list.members.iter().map(|item| match item.role {
            native::Role::Member => tame(&item.uid),
            role => format!("{} ({})", tame(&item.uid), role.as_str()),
        });
        let shown: Vec<String> = shown.collect();
        let more =
            if list.more { format!(" and {} more", list.of.saturating_sub(shown.len() as u64)) } else { String::new() };
        self.note(&format!("{}{more}", shown.join(", ")));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_whole_or_say_how_they_are_used() {
        let read = |line: &str| {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            Feature::read(word, rest.trim())
        };
        for (line, expected) in [
            ("reply 3 so  be it", Feature::Reply(3, "so  be it".into())),
            ("edit 12 x", Feature::Edit(12, "x".into())),
            ("revoke 1", Feature::Revoke(1)),
            ("like 2", Feature::React(2, Reaction::Like)),
            ("dislike 2", Feature::React(2, Reaction::Dislike)),
            ("unlike 2", Feature::React(2, Reaction::None)),
            ("search two words", Feature::Search("two words".into())),
            ("who 7", Feature::Readers(7)),
            ("pin", Feature::Flags { pinned: Some(true), muted: None, accepted: None }),
            ("unmute", Feature::Flags { pinned: None, muted: Some(false), accepted: None }),
            ("accept", Feature::Flags { pinned: None, muted: None, accepted: Some(true) }),
            ("block mallory", Feature::Block("mallory".into(), true)),
            ("group crew bob carol", Feature::Group("crew".into(), vec!["bob".into(), "carol".into()])),
            ("group crew", Feature::Group("crew".into(), vec![])),
            ("leave", Feature::Leave),
        ] {
            assert_eq!(read(line).expect(line).expect(line), expected);
        }
        for line in [
            "reply 3",
            "reply x y",
            "edit 1 ",
            "revoke",
            "revoke 0",
            "like -1",
            "search",
            "who bob",
            "block",
            "block a b",
            "group",
            "invite",
        ] {
            read(line).expect(line).expect_err(line);
        }
        for line in ["who", "list", "pin it", "to bob"] {
            assert!(read(line).is_none(), "{line}");
        }
    }
}
