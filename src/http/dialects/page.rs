//! Keeps `docs/dialects.md` equal to the one table of refusals and to the table of targets that the server is tested with.
//! `UPDATE=1 cargo test --lib docs_dialects` writes the page.

use std::fmt::Write;

use crate::domain::refusal::Refusal;
use crate::http::problem::Problem;
use crate::voices::tests::samples;

const PAGE: &str = include_str!("../../../docs/dialects.md");
const TARGETS: &str = include_str!("../../../tests/vectors/targets.json");
const LINE: &str = "<!-- generated -->\n";
const WIRES: [&str; 6] = ["chats", "threads", "relation", "m3o", "conversation", "native"];

/// Every problem a request can have, refusals first. A new kind of problem is added to the match, and then to the list.
fn problems() -> Vec<Problem> {
    let listed = |problem: &Problem| match problem {
        Problem::Refused(_)
        | Problem::CredentialExpired
        | Problem::ApplicationUnknown { .. }
        | Problem::Malformed { .. }
        | Problem::BodyTooLarge { .. }
        | Problem::BodyBroken
        | Problem::RangeNotSatisfiable { .. }
        | Problem::NoSuchPath
        | Problem::MethodNotAllowed
        | Problem::NotSupported { .. }
        | Problem::TimedOut
        | Problem::Panicked => (),
    };
    let problems: Vec<Problem> = samples()
        .into_iter()
        .map(Problem::Refused)
        .chain([
            Problem::CredentialExpired,
            Problem::ApplicationUnknown { given: false },
            Problem::malformed("limit", "is not a number"),
            Problem::BodyTooLarge { max: 1_048_576 },
            Problem::BodyBroken,
            Problem::RangeNotSatisfiable { size: 10 },
            Problem::NoSuchPath,
            Problem::MethodNotAllowed,
            Problem::NotSupported { note: "streams" },
            Problem::TimedOut,
            Problem::Panicked,
        ])
        .collect();
    problems.iter().for_each(listed);
    problems
}

fn generated() -> String {
    let mut page = String::from(
        "\n## Refusals\n\n`code` is the native word, also in the envelopes of threads and conversation and in `error` of chats. WuKongIM's \
         reason in\nbrackets is for its own wire; without brackets `/message/send` answers it with HTTP 200. Connections \
         that are refused at `connect` close with\nthe number in the last column.\n\n\
         | code | e.g. | HTTP, chats | WuKongIM | relation | m3o | close |\n|---|---|---|---|---|---|---|\n",
    );
    for problem in problems() {
        let voice = problem.voice();
        let reason = match voice.wukong_send_reason() {
            Some(reason) => reason.to_string(),
            None => format!("({})", voice.wukong_reason),
        };
        let code = match voice.m3o.code == voice.http {
            true => String::new(),
            false => format!(" ({})", voice.m3o.code),
        };
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {reason} | {} {} | {}{code} | {} |",
            voice.native,
            problem.text(),
            voice.chats(),
            voice.relation.code,
            voice.relation.desc,
            voice.m3o.id,
            voice.close.number(),
        );
    }
    page.push_str(
        "\nIn m3o a field that is missing or wrong is named in the id instead: `chat.Send.MissingText`, \
         `chat.New.InvalidUserIDs`.\n\n## Where a message may go\n\nWhat a user gets, with an own credential, for a send: \
         the HTTP status (chats, threads), the code (relation), the status or the id of the\nrefusal (m3o), the status or \
         the reason (conversation), the frame or its code (native). A user who is no member of a chat is told so; that \
         there\nis such a chat is told only where the document has two answers. What is refused is stored nowhere.\n\n",
    );
    let _ = writeln!(page, "| a message … | {} |\n|---|{}", WIRES.join(" | "), "---|".repeat(WIRES.len()));
    let cases: Vec<serde_json::Value> = serde_json::from_str(TARGETS).expect("a list");
    for case in cases {
        let words: Vec<&str> = WIRES.iter().map(|wire| case[wire].as_str().expect("a word")).collect();
        let _ = writeln!(page, "| {} | {} |", case["case"].as_str().expect("a name"), words.join(" | "));
    }
    page
}

#[test]
fn docs_dialects_is_what_the_code_says() {
    let (written, _) = PAGE.split_once(LINE).expect("the page has the line");
    let wanted = format!("{written}{LINE}{}", generated());
    if std::env::var_os("UPDATE").is_some() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/dialects.md");
        std::fs::write(path, &wanted).expect("the page can be written");
        return;
    }
    assert!(PAGE == wanted, "docs/dialects.md is old: UPDATE=1 cargo test --lib docs_dialects");
}

/// Every envelope says every problem: a status that is one, and its own word for it.
#[test]
fn every_problem_has_a_status_and_a_word() {
    for problem in problems() {
        let voice = problem.voice();
        assert_eq!(problem.status().as_u16(), voice.http, "{problem:?}");
        assert!((400..600).contains(&voice.http) && (400..600).contains(&voice.m3o.code), "{problem:?}");
        assert!(!problem.text().is_empty() && !problem.code().is_empty(), "{problem:?}");
        if let Problem::Refused(refusal) = &problem {
            assert_eq!(problem.code(), Refusal::code(refusal));
        }
    }
}
