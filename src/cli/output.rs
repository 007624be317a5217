//! How things look: JSON and tables on stdout, talk and progress on stderr.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::fault::{Context, Fault, Result};

/// One message, and the next step on a line of its own.
pub fn fault(fault: &Fault) {
    let mut text = format!("error: {}\n", fault.chain());
    if let Some(hint) = fault.next_step() {
        text.push_str(&format!("hint: {hint}\n"));
    }
    write_stderr(&text);
}

pub fn say(line: &str) {
    write_stderr(&format!("{line}\n"));
}

fn write_stderr(text: &str) {
    // Nobody listens: then there is nobody to tell.
    std::io::stderr().write_all(text.as_bytes()).ok();
}

pub fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("write JSON")?;
    data(&format!("{text}\n"))
}

/// Writes to stdout; a reader that has enough (`| head`) is no error.
pub fn data(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("write to stdout")
        }
        _ => Ok(()),
    }
}

pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    // Each cell is padded on both sides: none at the ends of a line.
    let trim = |line: &str| line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned();
    let text: Vec<String> = table.to_string().lines().map(trim).collect();
    data(&format!("{}\n", text.join("\n")))
}

/// A bar on a terminal: bytes, rate, and the time left where the size is known. Nothing elsewhere.
pub struct Progress {
    bar: ProgressBar,
    task: tokio::task::JoinHandle<()>,
}

impl Progress {
    /// `look` returns bytes done and bytes in all.
    pub fn show(name: String, look: impl Fn() -> (u64, Option<u64>) + Send + 'static) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let known = "{prefix} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left";
        let unknown = "{prefix} {spinner} {decimal_bytes} {decimal_bytes_per_sec}";
        let style = |text| {
            ProgressStyle::with_template(text).unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        bar.set_style(style(unknown));
        bar.set_prefix(name);
        let shown = bar.clone();
        let (known, task_bar) = (style(known), shown.clone());
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(200));
            loop {
                ticks.tick().await;
                let (done, total) = look();
                if let Some(total) = total.filter(|_| task_bar.length().is_none()) {
                    task_bar.set_length(total);
                    task_bar.set_style(known.clone());
                }
                // The size was an estimate: a dump may be larger.
                if task_bar.length().is_some_and(|length| length < done) {
                    task_bar.set_length(done);
                }
                task_bar.set_position(done);
            }
        });
        Self { bar: shown, task }
    }

    pub fn end(self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}
