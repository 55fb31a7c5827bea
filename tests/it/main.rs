//! Capabilities, through real sockets and HTTP against a real server on port 0. One binary; a file per capability says in
//! its head what it proves. Conditions are waited for with a time limit, never durations.

mod across;
mod agreement;
mod curl;
mod data_dir;
mod dedupe;
mod drain;
mod expiry;
mod fanout;
mod features;
mod handshake;
mod harness;
mod hook_receiver;
mod http;
mod http_back_end;
mod http_chats;
mod http_conversation;
mod http_features;
mod http_files;
mod http_m3o;
mod http_relation;
mod http_threads;
mod http_vectors;
mod limits;
mod micro;
mod ordering;
mod presence;
mod raw;
mod send_ack;
mod slow_consumer;
mod sync;
mod sync_props;
mod webhook;
mod wire_features;
