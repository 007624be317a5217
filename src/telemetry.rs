//! The log: lines for a person or JSON for a machine, and beside it one file for each run. Knows
//! tracing; must not know jobs. A run's file is opened by a span named `run` with a field `log`.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::clock::Clock;
use crate::durable;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Where the log goes: the daemon's is its data, other commands only talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Starts logging for this process. `filter` is in `RUST_LOG`'s syntax.
pub fn start(format: Format, stream: Stream, filter: &str, colour: bool, clock: Clock) {
    let terminal = match stream {
        Stream::Stdout => std::io::stdout().is_terminal(),
        Stream::Stderr => std::io::stderr().is_terminal(),
    };
    let writer = match stream {
        Stream::Stdout => BoxMakeWriter::new(std::io::stdout),
        Stream::Stderr => BoxMakeWriter::new(std::io::stderr),
    };
    let lines: Box<dyn Layer<_> + Send + Sync> = match format {
        Format::Json => Box::new(
            tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(writer),
        ),
        Format::Text => {
            Box::new(TextLog { writer, colour: colour && terminal, clock: clock.clone() })
        }
    };
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // A run's own file is for looking into what happened: it has everything, whatever is shown.
    let run_log = RunLog { clock }.with_filter(EnvFilter::new("respaldo=info,warn"));
    tracing_subscriber::registry().with(run_log).with(lines.with_filter(filter)).init();
}

/// A line a person reads: time, level, job, sentence, then the fields.
struct TextLog {
    writer: BoxMakeWriter,
    colour: bool,
    clock: Clock,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TextLog {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let job = context
            .event_scope(event)
            .into_iter()
            .flatten()
            .find_map(|span| span.extensions().get::<RunFile>().map(|run| run.job.clone()));
        let line = line(event, &self.clock, self.colour, job.as_deref());
        self.writer.make_writer().write_all(line.as_bytes()).ok();
    }
}

/// What a `run` span carries: its log file and its job's name.
struct RunFile {
    file: Option<Mutex<File>>,
    job: String,
}

struct RunLog {
    clock: Clock,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for RunLog {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().name() != "run" {
            return;
        }
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let path = fields.take("log").unwrap_or_default();
        let run = RunFile {
            file: open_log(Path::new(&path)),
            job: fields.take("job").unwrap_or_default(),
        };
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(run);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        for span in context.event_scope(event).into_iter().flatten() {
            let extensions = span.extensions();
            let Some(file) = extensions.get::<RunFile>().and_then(|run| run.file.as_ref()) else {
                continue;
            };
            if let Ok(mut file) = file.lock() {
                // The log on stdout has it too; a full disk must not end the run.
                file.write_all(line(event, &self.clock, false, None).as_bytes()).ok();
            }
        }
    }
}

fn open_log(path: &Path) -> Option<Mutex<File>> {
    durable::create_folder(path.parent()?).ok()?;
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).ok().map(Mutex::new)
}

#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl Fields {
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(key, _)| *key == name)?;
        Some(self.0.remove(at).1)
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }
}

fn line(event: &Event<'_>, clock: &Clock, colour: bool, job: Option<&str>) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let level = event.metadata().level();
    let level = match (colour, *level) {
        (true, tracing::Level::ERROR) => "\x1b[31mERROR\x1b[0m".to_owned(),
        (true, tracing::Level::WARN) => "\x1b[33mWARN\x1b[0m ".to_owned(),
        _ => format!("{level:<5}"),
    };
    let message = fields.take("message").unwrap_or_default();
    let job = job.map(|job| format!("[{job}] ")).unwrap_or_default();
    let time = clock.now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let mut text = format!("{time} {level} {job}{message}");
    for (key, value) in fields.0 {
        if key.starts_with("log.") {
            continue;
        }
        text.push_str(&format!(" {key}={value}"));
    }
    // One event is one line, whatever a server or a file name put into it.
    let mut text: String = text.replace('\n', "\\n").replace('\r', "\\r");
    text.push('\n');
    text
}
