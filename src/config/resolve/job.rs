//! Jobs: a source, a schedule, and what is kept where. Knows the keys of each source; must not
//! connect to one.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;

use super::{Desk, command, encrypt, hooks, mysql, physical, postgres, proof};
use crate::config::file::{FileJob, FileSource};
use crate::config::settings::{Destination, Job, PgKind, Source};
use crate::config::{did_you_mean, units};
use crate::fault::Result;
use crate::model::{Compression, JobName};
use crate::retention::Policy;
use crate::schedule::Schedule;

/// Below this, a backup would have too many files; above, a part of S3 more than 8 MiB.
const VOLUME: std::ops::RangeInclusive<u64> = (64 << 10)..=(64 << 30);
/// How much smaller than usual a backup may be, in percent, where the config does not say.
const ANOMALY: u8 = 50;

/// What a restore replaced stays for this long.
const KEEP_OLD: SignedDuration = SignedDuration::from_hours(72);

pub(super) fn resolve(
    desk: &mut Desk<'_>,
    name: &JobName,
    written: FileJob,
    zone: &TimeZone,
    destinations: &BTreeMap<String, Destination>,
) -> Result<Job> {
    let key = |last: &str| format!("jobs.{}.{last}", name.as_str());
    let sources = match (written.source, written.sources) {
        (Some(one), None) => vec![source(desk, &key("source"), one)?],
        (None, Some(several)) if !several.is_empty() => several
            .into_iter()
            .enumerate()
            .map(|(n, one)| source(desk, &format!("{}[{n}]", key("sources")), one))
            .collect::<Result<_>>()?,
        (Some(_), Some(_)) => {
            return Err(desk
                .refuse(&key("source"), "sources is given as well")
                .hint("write one source, or all of them into sources"));
        }
        (None, _) => {
            return Err(desk
                .refuse(&key("source"), "it is missing")
                .hint("add source: what is backed up"));
        }
    };
    let keep = keep(desk, &key("keep"), written.keep, destinations)?;

    let span = |desk: &Desk<'_>, last: &str, text: &str| {
        units::duration(text).map_err(|why| {
            desk.wrong(&key(last), text, why).hint("for example 90s, 30m, 13h or 7d")
        })
    };
    let jitter = match &written.jitter {
        Some(text) => span(desk, "jitter", text)?,
        None => SignedDuration::ZERO,
    };
    let on_change = on_change(desk, &key, written.on_change, written.poll, &sources)?;
    if written.schedule.is_none() && on_change.is_none() {
        desk.warnings
            .push(format!("{} is missing: the job runs only when asked to", key("schedule")));
    }
    let lines = written.schedule.unwrap_or_default();
    let schedule = desk.schedule(&key("schedule"), &lines, zone, jitter)?;
    let chain = (written.incremental, written.max_chain);
    let incremental = physical::incremental(desk, &key, &sources, chain, (zone, jitter))?;
    let max_age = match &written.max_age {
        None => None,
        Some(text) => Some(span(desk, "max_age", text)?).filter(|age| !age.is_zero()),
    };
    if let (Some(text), None) = (&written.max_age, max_age) {
        return Err(desk
            .wrong(&key("max_age"), text, "it must be more than nothing")
            .hint("for example 13h"));
    }
    if let (Some(age), Some(wait)) = (max_age, longest_wait(&schedule, desk))
        && age < wait
    {
        desk.warnings.push(format!(
            "{} is {}, but the schedule waits {} between runs: the job will be called late though \
             it isn't",
            key("max_age"),
            units::show_duration(age),
            units::show_duration(wait)
        ));
    }
    let compression = written.compression.unwrap_or(Compression::Zstd);
    let levels = match compression {
        Compression::Zstd => 1..=22,
        Compression::Gzip => 1..=12,
        Compression::None => 0..=0,
    };
    if let Some(level) = written.level.filter(|level| !levels.contains(level)) {
        let why = match compression {
            Compression::None => "without compression there is no level".to_owned(),
            _ => format!("the levels are {} to {}", levels.start(), levels.end()),
        };
        return Err(desk
            .refuse(&key("level"), format!("it can't be {level}: {why}"))
            .hint("change level, or compression"));
    }
    let encrypt = match written.encrypt {
        Some(encrypt) => Some(encrypt::resolve(desk, &key("encrypt"), encrypt)?),
        None => None,
    };
    let wal = physical::wal(desk, &key("wal"), (&sources, &keep), written.wal)?;
    Ok(Job {
        name: name.clone(),
        sources,
        wal,
        schedule,
        schedule_lines: lines,
        incremental,
        jitter,
        keep,
        max_age,
        anomaly: match &written.anomaly {
            None => Some(ANOMALY),
            Some(text) => anomaly(text).map_err(|why| {
                desk.wrong(&key("anomaly"), text, why).hint("for example \"50%\", or \"off\"")
            })?,
        },
        sync: written.sync.unwrap_or(true),
        catch_up: written.catch_up.unwrap_or(true),
        compression,
        level: written.level,
        encrypt,
        on_change,
        hooks: match written.hooks {
            Some(given) => Some(hooks::resolve(desk, &key("hooks"), given)?),
            None => None,
        },
        drill: match written.drill {
            Some(given) => Some(proof::drill(desk, &key("drill"), given, zone)?),
            None => None,
        },
        verify: match written.verify {
            Some(given) => Some(proof::verify(desk, &key("verify"), given, zone)?),
            None => None,
        },
        keep_old: match &written.keep_old {
            Some(text) => span(desk, "keep_old", text)?,
            None => KEEP_OLD,
        },
        deadline: desk.wait(&key("deadline"), written.deadline, Duration::from_secs(24 * 3600))?,
        retries: written.retries.unwrap_or(2),
        volume_bytes: match written.volume_size {
            None => *VOLUME.end(),
            Some(text) => volume(&text).map_err(|why| {
                desk.wrong(&key("volume_size"), &text, why).hint("for example 64GiB, the default")
            })?,
        },
    })
}

/// `50%` or `off`.
fn anomaly(text: &str) -> Result<Option<u8>, String> {
    if text.trim() == "off" {
        return Ok(None);
    }
    let percent = text.trim().strip_suffix('%').and_then(|number| number.trim().parse().ok());
    match percent.filter(|percent| (1..=99).contains(percent)) {
        Some(percent) => Ok(Some(percent)),
        None => Err("it is 1% to 99%, or off".into()),
    }
}

/// How often files are looked at, where their changes make the job run.
fn on_change(
    desk: &Desk<'_>,
    key: &impl Fn(&str) -> String,
    wanted: Option<bool>,
    poll: Option<String>,
    sources: &[Source],
) -> Result<Option<Duration>> {
    if wanted != Some(true) {
        return match poll {
            Some(_) => Err(desk
                .refuse(&key("poll"), "it says how often to look, but on_change is not set")
                .hint("add on_change = true, or remove poll")),
            None => Ok(None),
        };
    }
    if !sources.iter().any(|source| matches!(source, Source::Files { .. })) {
        return Err(desk
            .refuse(&key("on_change"), "only the changes of files can be seen")
            .hint("give a schedule instead"));
    }
    let every = desk.wait(&key("poll"), poll, Duration::from_secs(60))?;
    if every < Duration::from_secs(1) {
        return Err(desk.refuse(&key("poll"), "it is less than a second").hint("for example 60s"));
    }
    Ok(Some(every))
}

fn volume(text: &str) -> Result<u64, String> {
    let bytes = units::size(text)?;
    if VOLUME.contains(&bytes) {
        return Ok(bytes);
    }
    let (least, most) = (units::show_size(*VOLUME.start()), units::show_size(*VOLUME.end()));
    Err(format!("a volume has {least} to {most}"))
}

/// The longest of the next waits between two runs.
fn longest_wait(schedule: &Schedule, desk: &Desk<'_>) -> Option<SignedDuration> {
    let mut at = schedule.next(desk.now)?;
    let mut longest = SignedDuration::ZERO;
    for _ in 0..20 {
        let next = schedule.next(at)?;
        longest = longest.max(next.duration_since(at));
        at = next;
    }
    Some(longest)
}

fn keep(
    desk: &mut Desk<'_>,
    key: &str,
    written: Option<BTreeMap<String, Policy>>,
    destinations: &BTreeMap<String, Destination>,
) -> Result<BTreeMap<String, Policy>> {
    if destinations.is_empty() {
        return Err(desk
            .refuse(key, "there is no destination, so there is nowhere to keep a backup")
            .hint("add a section [destinations.local] with url = \"file:///backups\""));
    }
    let Some(keep) = written else {
        desk.warnings
            .push(format!("{key} is missing: every destination is used and keeps every backup"));
        return Ok(destinations.keys().map(|name| (name.clone(), Policy::default())).collect());
    };
    let known = || destinations.keys().map(String::as_str);
    if keep.is_empty() {
        return Err(desk
            .refuse(key, "it names no destination")
            .hint(format!("name one or more of {}", known().collect::<Vec<_>>().join(", "))));
    }
    match keep.keys().find(|name| !destinations.contains_key(*name)) {
        None if keep.values().all(|policy| policy.accept.is_some()) => Err(desk
            .refuse(key, "each of its destinations takes only some backups, by accept")
            .hint(
                "leave accept away on one; where all is for a cold one, a rare schedule is enough",
            )),
        None => Ok(keep),
        Some(name) => {
            let meant = did_you_mean(name, known());
            let known = known().collect::<Vec<_>>().join(", ");
            Err(desk
                .refuse(&format!("{key}.{name}"), format!("there is no destination {name}{meant}"))
                .hint(format!("add a section [destinations.{name}]; there is {known}")))
        }
    }
}

fn source(desk: &mut Desk<'_>, key: &str, written: FileSource) -> Result<Source> {
    let kinds = [
        ("postgres", written.postgres.is_some()),
        ("mysql", written.mysql.is_some()),
        ("sqlite", written.sqlite.is_some()),
        ("files", written.files.is_some()),
        ("command", written.command.is_some()),
    ];
    let given: Vec<&str> =
        kinds.iter().filter(|(_, given)| *given).map(|(kind, _)| *kind).collect();
    let &[kind] = given.as_slice() else {
        let why = match given.is_empty() {
            true => "it names nothing to back up".to_owned(),
            false => format!("it names {}, and a job has one source", given.join(" and ")),
        };
        return Err(desk
            .refuse(key, why)
            .hint("give one of postgres, mysql, sqlite, files and command; a job for each"));
    };
    let servers: &[&str] = &["postgres", "mysql"];
    let others: [(_, &[&str], _); 21] = [
        ("kind", &["postgres"], written.kind.is_some()),
        ("allow_unbounded_slot", &["postgres"], written.allow_unbounded_slot.is_some()),
        ("server_compression", &["postgres"], written.server_compression.is_some()),
        ("password", servers, written.password.is_some()),
        ("password_file", servers, written.password_file.is_some()),
        ("format", &["postgres"], written.format.is_some()),
        ("bin_dir", servers, written.bin_dir.is_some()),
        ("databases", &["postgres"], written.databases.is_some()),
        ("schemas", &["postgres"], written.schemas.is_some()),
        ("exclude_tables", &["postgres"], written.exclude_tables.is_some()),
        ("exclude_rows", &["postgres"], written.exclude_rows.is_some()),
        ("streams", &["postgres"], written.streams.is_some()),
        ("streams_above", &["postgres"], written.streams_above.is_some()),
        ("fingerprint", &["postgres", "sqlite"], written.fingerprint.is_some()),
        ("globals", &["postgres"], written.globals.is_some()),
        ("exclude", &["files"], written.exclude.is_some()),
        ("unreadable", &["files"], written.unreadable.is_some()),
        ("name", &["command"], written.name.is_some()),
        ("extension", &["command"], written.extension.is_some()),
        ("env", &["command"], written.env.is_some()),
        ("restore_command", &["command"], written.restore_command.is_some()),
    ];
    let misplaced = others.iter().find(|(_, of, given)| *given && !of.contains(&kind));
    if let Some((name, owners, _)) = misplaced {
        let owners = owners.join(" and ");
        return Err(desk
            .refuse(&format!("{key}.{name}"), format!("it belongs to {owners}, not to {kind}"))
            .hint("remove it"));
    }
    if let (Some(url), Some(PgKind::Physical)) = (&written.postgres, written.kind) {
        return physical::source(desk, key, &url.clone(), written);
    }
    let whole = [
        ("allow_unbounded_slot", written.allow_unbounded_slot, "has a slot"),
        ("server_compression", written.server_compression, "can be compressed by the server"),
    ];
    if let Some((name, _, why)) = whole.iter().find(|(_, given, _)| given.is_some()) {
        return Err(desk
            .refuse(&format!("{key}.{name}"), format!("only kind = \"physical\" {why}"))
            .hint("remove it"));
    }
    if let Some(url) = &written.postgres {
        return postgres::resolve(desk, key, &url.clone(), written).map(Source::Postgres);
    }
    if let Some(url) = &written.mysql {
        return mysql::resolve(desk, key, &url.clone(), written).map(Source::Mysql);
    }
    if written.command.is_some() {
        return command::resolve(desk, key, written).map(Source::Command);
    }
    if let Some(path) = written.sqlite {
        return Ok(Source::Sqlite {
            path: desk.absolute(&format!("{key}.sqlite"), path)?,
            fingerprint: written.fingerprint.unwrap_or_default(),
        });
    }
    let files_key = format!("{key}.files");
    let mut paths = Vec::new();
    for path in written.files.unwrap_or_default() {
        paths.push(desk.absolute(&files_key, path)?);
    }
    if paths.is_empty() {
        return Err(desk.refuse(&files_key, "it names no folder").hint("for example \"/media\""));
    }
    let exclude = written.exclude.unwrap_or_default();
    for glob in &exclude {
        globset::Glob::new(glob).map_err(|error| {
            desk.wrong(&format!("{key}.exclude"), glob, error.kind())
                .hint("a pattern looks like cache/** or *.tmp")
        })?;
    }
    Ok(Source::Files { paths, exclude, unreadable: written.unreadable.unwrap_or_default() })
}
