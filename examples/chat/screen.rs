//! What people see: lines above the input line of a terminal, or plain lines of a pipe.
//!
//! Owns colours and the printer that does not break the line being typed. Refuses to know messages.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context, Result};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tokio::sync::mpsc;

/// Lines typed ahead of a program that is busy; the reader waits beyond it.
const LINES_AHEAD: usize = 256;

type Printer = Box<dyn rustyline::ExternalPrinter + Send>;

/// Where lines go.
pub struct Screen {
    printer: Option<Mutex<Printer>>,
    colours: bool,
}

/// Colours of the few things that differ.
#[derive(Debug, Clone, Copy)]
pub enum Ink {
    /// What somebody else said.
    Peer,
    /// What this user said.
    Own,
    /// What the program says.
    Note,
    /// What went wrong.
    Alarm,
}

impl Screen {
    /// Prints one line (or several) in the colour of its kind.
    pub fn print(&self, ink: Ink, text: &str) {
        let line = match (self.colours, ink) {
            (false, _) => format!("{text}\n"),
            (true, Ink::Peer) => format!("\x1b[36m{text}\x1b[0m\n"),
            (true, Ink::Own) => format!("\x1b[32m{text}\x1b[0m\n"),
            (true, Ink::Note) => format!("\x1b[2m{text}\x1b[0m\n"),
            (true, Ink::Alarm) => format!("\x1b[33m{text}\x1b[0m\n"),
        };
        let printed = match &self.printer {
            Some(printer) => match printer.lock() {
                Ok(mut printer) => printer.print(line.clone()).is_ok(),
                Err(_) => false,
            },
            None => false,
        };
        if !printed {
            let mut out = std::io::stdout().lock();
            // A closed pipe shows at the next line of input.
            let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
        }
    }
}

/// Makes text of strangers safe to print: a terminal must not be steered by a message.
pub fn tame(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// Opens the screen and starts reading lines; the receiver ends with the input.
///
/// # Errors
/// The terminal cannot be set up.
pub fn open(prompt: String, history: Option<PathBuf>) -> Result<(Screen, mpsc::Receiver<String>)> {
    let (lines, received) = mpsc::channel(LINES_AHEAD);
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        std::thread::spawn(move || {
            for line in std::io::stdin().lines() {
                let Ok(line) = line else { break };
                if lines.blocking_send(line).is_err() {
                    break;
                }
            }
        });
        return Ok((Screen { printer: None, colours: false }, received));
    }
    let mut editor = DefaultEditor::new().context("setting up the line editor")?;
    if let Some(path) = &history
        && path.exists()
    {
        editor.load_history(path).with_context(|| format!("reading {}", path.display()))?;
    }
    let printer: Printer = Box::new(editor.create_external_printer().context("setting up the terminal")?);
    std::thread::spawn(move || {
        loop {
            match editor.readline(&prompt) {
                Ok(line) => {
                    if !line.trim().is_empty() {
                        // A line that cannot be remembered can still be sent.
                        let _ = editor.add_history_entry(&line);
                    }
                    if lines.blocking_send(line).is_err() {
                        break;
                    }
                }
                Err(ReadlineError::Interrupted | ReadlineError::Eof) => break,
                Err(e) => {
                    eprintln!("the line editor failed: {e}");
                    break;
                }
            }
        }
        if let Some(path) = history {
            // The history is a comfort; leaving must not fail for it.
            let _ = editor.save_history(&path);
        }
    });
    let colours = std::env::var_os("NO_COLOR").is_none();
    Ok((Screen { printer: Some(Mutex::new(printer)), colours }, received))
}
