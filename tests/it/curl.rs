//! The documents' curl lines, run by curl itself: what a type header or a stray word of the command line does is curl's to say.

use std::process::Stdio;

use serde_json::Value;

/// Runs a shell line whose curl asks this machine only; the last answer's HTTP status and JSON.
///
/// The word `POST` without `-X`, as documents print it, is a second address to curl; it leads to a port nobody has.
pub async fn curl(line: &str) -> (u16, Value) {
    let line = line.trim().trim_end_matches(';');
    let line = line.replacen(
        "curl",
        "curl -sS --max-time 20 --noproxy '*' --connect-to 'POST:80:127.0.0.1:1' -w '\\n%{http_code}'",
        1,
    );
    let run = move || (std::process::Command::new("sh").arg("-c").arg(&line).stdin(Stdio::null()).output(), line);
    let (output, line) = tokio::task::spawn_blocking(run).await.expect("no panic");
    let output = output.expect("sh and curl are needed");
    let text = String::from_utf8(output.stdout).expect("utf-8");
    // What came before is the answer, or the lack of one, of the stray address.
    let (body, status) = text.rsplit_once('\n').unwrap_or_else(|| {
        panic!("curl says nothing: {line}\n{}", String::from_utf8_lossy(&output.stderr));
    });
    let begin = body.find(['{', '[']).unwrap_or_else(|| panic!("no JSON: {text}"));
    (status.parse().expect("a status"), serde_json::from_str(&body[begin..]).expect("JSON"))
}
