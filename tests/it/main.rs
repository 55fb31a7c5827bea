//! Capabilities, through real sockets and HTTP against a real server on port 0. One binary; a file per capability says in
//! its head what it proves. Conditions are waited for with a time limit, never durations.

mod harness;
mod http;
mod http_back_end;
mod http_conversation;
mod send_ack;
