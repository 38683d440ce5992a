//! Log records on stderr or stdout, as text or JSON, and to a syslog daemon; chosen by `ADIT_LOG_FILTER`.

mod flood;
mod limit;
mod lines;
mod syslog;

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::thread;

use anyhow::{Context, anyhow};
use tokio_util::task::AbortOnDropHandle;
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::proto::limits::log::{BATCH_BYTES, BATCH_EVERY, WAITING, WINDOW};
use crate::relay::config::{LogFormat, SyslogConfig};
use flood::Flood;
use limit::LeftOut;
use lines::{Form, Lines};
use syslog::Syslog;

/// The variable that says which records are written, in the notation of tracing-subscriber's `EnvFilter`.
pub const FILTER: &str = "ADIT_LOG_FILTER";

/// Target of the records that tell how many others were left out.
const LEFT_OUT: &str = "adit::log";

/// Records are written as long as this lives; it tells of what was left out, the last time when it is dropped.
#[must_use]
pub struct Log {
    told: Told,
    _telling: AbortOnDropHandle<()>,
    /// Dropped last: it writes what waits.
    _writing: WorkerGuard,
}

impl Drop for Log {
    fn drop(&mut self) {
        self.told.tell(true);
        if let Some(syslog) = &self.told.syslog {
            syslog.finish();
            self.told.tell(true);
        }
    }
}

/// Where records go, beside a syslog daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Out {
    /// Beside what a command prints.
    Stderr,
    /// Where the log of a container is read.
    Stdout,
    /// Where stderr is something else.
    Nowhere,
}

/// Writes to both, whatever becomes of one of them; the first record at once, and what comes in a while after it at one go.
/// To wake the thread and to write cost more than a record does.
struct Batches<W> {
    out: W,
    file: Option<File>,
    waiting: Vec<u8>,
}

impl<W: Write> Batches<W> {
    fn new(out: W, file: Option<File>) -> Self {
        Self { out, file, waiting: Vec::new() }
    }

    fn pass_on(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            let _ = file.write_all(&self.waiting);
        }
        let passed = self.out.write_all(&self.waiting);
        self.waiting.clear();
        passed
    }
}

impl<W: Write> Write for Batches<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(record);
        if self.waiting.len() >= BATCH_BYTES {
            self.pass_on()?;
        }
        Ok(record.len())
    }

    /// The thread of the log calls this when it has nothing more to write, and then waits for the next record.
    fn flush(&mut self) -> io::Result<()> {
        let passed = self.pass_on().and_then(|()| self.out.flush());
        thread::sleep(BATCH_EVERY);
        passed
    }
}

/// Where records go, and which.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// Beside a file and a syslog daemon.
    pub out: Out,
    /// How they are written.
    pub format: LogFormat,
    /// A daemon that gets them, too.
    pub syslog: &'a SyslogConfig,
    /// Ours are told at debug, unless the environment says something else.
    pub verbose: bool,
    /// A file that gets them, too, behind what is in it.
    pub file: Option<&'a Path>,
}

/// The same without a file.
pub fn init(out: Out, format: LogFormat, syslog: &SyslogConfig) -> anyhow::Result<Log> {
    begin(Settings { out, format, syslog, verbose: false, file: None })
}

/// Begins to write log records. To be called once in a process, within a tokio runtime.
pub fn begin(settings: Settings<'_>) -> anyhow::Result<Log> {
    let Settings { out, format, syslog, verbose, file } = settings;
    let usual = if verbose { VERBOSE } else { USUAL };
    let filter = filter(std::env::var(FILTER).ok(), usual)?;
    let open = |path: &Path| {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.with_context(|| format!("the log file {} cannot be written", path.display()))
    };
    let file = file.map(open).transpose()?;
    // https://no-color.org: set and not empty.
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_terminal = match out {
        Out::Stderr => io::stderr().is_terminal(),
        Out::Stdout => io::stdout().is_terminal(),
        Out::Nowhere => false,
    };
    // A file has no use for colours.
    let colour = is_terminal && !plain && file.is_none();
    let form = match format {
        LogFormat::Json => Form::Json,
        LogFormat::Text if colour => Form::Colour,
        LogFormat::Text => Form::Text,
    };
    // A thread of its own: who reads too slowly, or not at all, must not hold up what is logged.
    let writer = NonBlockingBuilder::default().buffered_lines_limit(WAITING).thread_name("log");
    let (out, writing) = match out {
        Out::Stderr => writer.finish(Batches::new(io::stderr(), file)),
        Out::Stdout => writer.finish(Batches::new(io::stdout(), file)),
        Out::Nowhere => writer.finish(Batches::new(io::sink(), file)),
    };
    let told = Told { lines: Lines::new(form, out), flood: Flood::new(), syslog: Syslog::start(syslog)? };
    // Time, level and place have fields of their own in syslog.
    let to_syslog = told.syslog.clone().map(|syslog| {
        fmt::layer().with_ansi(false).without_time().with_level(false).with_target(false).with_writer(syslog)
    });
    let layer = fmt::layer().with_ansi(form == Form::Colour).with_writer(told.lines.clone());
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(is_presentable));
    let registry = registry.with(told.flood.clone()).with(to_syslog);
    let done = match form {
        Form::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        Form::Text | Form::Colour => registry.with(layer).try_init(),
    };
    done.map_err(|error| anyhow!("log records are already being written: {error}"))?;
    let telling = told.clone();
    let telling = tokio::spawn(async move {
        let mut windows = tokio::time::interval(WINDOW / 2);
        loop {
            windows.tick().await;
            telling.tell(false);
        }
    });
    Ok(Log { told, _telling: AbortOnDropHandle::new(telling), _writing: writing })
}

/// What may leave records out, and is asked how many.
#[derive(Clone)]
struct Told {
    lines: Lines,
    flood: Flood,
    syslog: Option<Syslog>,
}

impl Told {
    fn tell(&self, at_the_end: bool) {
        for LeftOut { place, count } in self.flood.left_out(at_the_end) {
            tracing::warn!(target: LEFT_OUT, count, place, "more records of this kind were left out");
        }
        let count = self.lines.unread();
        if count > 0 {
            tracing::warn!(target: LEFT_OUT, count, "records were left out, as the log was read too slowly");
        }
        let Some(syslog) = &self.syslog else { return };
        let (count, trouble) = syslog.trouble();
        let (address, error) = (syslog.address(), trouble.as_deref());
        if count > 0 {
            tracing::warn!(target: LEFT_OUT, count, address, error, "records did not reach syslog");
        } else if error.is_some() {
            tracing::warn!(target: LEFT_OUT, address, error, "syslog takes no records; they wait, or are lost");
        }
    }
}

/// Handshakes of strangers are told at a finer level, as connections that come to nothing.
const USUAL: &str = "info,rustls=error";
/// The same with all of ours.
const VERBOSE: &str = "info,adit=debug,rustls=error";

fn filter(value: Option<String>, usual: &str) -> anyhow::Result<EnvFilter> {
    let value = value.filter(|value| !value.is_empty()).unwrap_or_else(|| usual.into());
    let filter = EnvFilter::builder().parse(&value).with_context(|| {
        format!("environment {FILTER}: {value:?}: expected for example info or adit::relay=debug")
    })?;
    // Whatever is chosen: a gap in the log must show.
    Ok(filter.add_directive(format!("{LEFT_OUT}=warn").parse()?))
}

/// At finer levels other crates write out what is sent and received: keys, cookies, and the ids of connections, which are
/// secrets.
fn is_presentable(of: &Metadata<'_>) -> bool {
    let ours = of.target() == "adit" || of.target().starts_with("adit::");
    ours || *of.level() <= LevelFilter::INFO
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts its writes.
    #[derive(Default)]
    struct Counting(Vec<Vec<u8>>);

    impl Write for Counting {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn records_that_come_together_are_written_together_in_their_order() {
        let mut batches = Batches::new(Counting::default(), None);
        for record in ["a\n", "b\n"] {
            batches.write_all(record.as_bytes()).unwrap();
        }
        batches.flush().unwrap();
        batches.flush().unwrap();
        assert_eq!(batches.out.0, [b"a\nb\n"]);
        // However many they are.
        batches.write_all(&[b'x'; BATCH_BYTES]).unwrap();
        assert_eq!(batches.out.0.len(), 2);
    }

    #[test]
    fn the_filter_is_info_unless_another_is_given() {
        let usual = &["adit::log=warn", "info", "rustls=error"][..];
        for (value, directives) in
            [(None, usual), (Some(""), usual), (Some("adit=debug"), &["adit::log=warn", "adit=debug"])]
        {
            let filter = filter(value.map(str::to_owned), USUAL).unwrap().to_string();
            let mut found: Vec<&str> = filter.split(',').collect();
            found.sort_unstable();
            assert_eq!(found, directives);
        }
        let error = filter(Some("adit=loud".into()), USUAL).unwrap_err().to_string();
        assert!(error.contains("ADIT_LOG_FILTER") && error.contains("adit=loud"), "{error}");
    }
}
