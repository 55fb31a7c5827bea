//! `config check`, `config show`, `config example`.

use clap::Subcommand;

use super::{Exit, Failure, Settings};
use crate::config::{Config, Shown};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether the settings can be used
    Check,
    /// List every key with its value, origin, environment variable, unit and range
    Show {
        /// As JSON, with the reason of every key
        #[arg(long)]
        json: bool,
    },
    /// Print a file with every key at its default
    Example,
}

pub(super) fn run(settings: &Settings, command: &ConfigCommand) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check => {
            settings.load()?;
            println!("the configuration is valid");
        }
        ConfigCommand::Show { json: true } => println!("{}", serde_json::to_string_pretty(&settings.load()?.show())?),
        ConfigCommand::Show { json: false } => print!("{}", table(&settings.load()?.show())),
        ConfigCommand::Example => print!("{}", Config::example()),
    }
    Ok(Exit::Success)
}

fn table(shown: &[Shown]) -> String {
    let mut rows = vec![["key", "value", "origin", "environment", "unit", "range"].map(str::to_owned)];
    rows.extend(shown.iter().map(|s| {
        [s.key.to_owned(), s.value.clone(), s.origin.clone(), s.env.clone(), s.unit.to_owned(), s.range.clone()]
    }));
    columns(&rows)
}

/// Rows with aligned columns.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
