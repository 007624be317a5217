//! Drills and verifications of a job: when, and by what. Knows their keys; must not hold one.

use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;

use super::{Desk, command, postgres};
use crate::config::file::{FileDrill, FileVerify};
use crate::config::settings::{Drill, Verify};
use crate::fault::Result;

const DEADLINE: Duration = Duration::from_secs(12 * 3600);
/// Where the config does not say within how many days every backup is read.
const DAYS: u32 = 30;

pub(super) fn drill(
    desk: &mut Desk<'_>,
    key: &str,
    written: FileDrill,
    zone: &TimeZone,
) -> Result<Drill> {
    let at = |last: &str| format!("{key}.{last}");
    let lines = written.schedule.unwrap_or_default();
    let schedule = desk.schedule(&at("schedule"), &lines, zone, SignedDuration::ZERO)?;
    let mut programs = Vec::new();
    for (n, words) in written.programs.unwrap_or_default().into_iter().enumerate() {
        programs.push(command::words(desk, &format!("{key}.programs[{n}]"), words)?);
    }
    let checks = written.checks.unwrap_or_default();
    if checks.iter().any(|sql| sql.trim().is_empty()) {
        return Err(desk
            .refuse(&at("checks"), "one of them is empty")
            .hint("for example \"SELECT count(*) > 0 FROM users\""));
    }
    let mut identity_files = Vec::new();
    for path in written.identity_file.unwrap_or_default() {
        identity_files.push(desk.absolute(&at("identity_file"), PathBuf::from(path))?);
    }
    let passphrase_file = match written.passphrase_file {
        Some(path) => Some(desk.absolute(&at("passphrase_file"), path)?),
        None => None,
    };
    let server = match &written.server {
        Some(url) => {
            let (password, file) = (written.server_password, written.server_password_file);
            Some(postgres::server(desk, &at("server"), url, password, file)?)
        }
        None if written.server_password.is_some() || written.server_password_file.is_some() => {
            return Err(desk
                .refuse(&at("server_password"), "there is no server that it is for")
                .hint("add server = \"postgres://user@host:5432/postgres\", or remove it"));
        }
        None => None,
    };
    let deadline = desk.wait(&at("deadline"), written.deadline, DEADLINE)?;
    Ok(Drill {
        schedule,
        schedule_lines: lines,
        checks,
        programs,
        deadline,
        identity_files,
        passphrase_file,
        server,
    })
}

pub(super) fn verify(
    desk: &mut Desk<'_>,
    key: &str,
    written: FileVerify,
    zone: &TimeZone,
) -> Result<Verify> {
    let lines = written.schedule.unwrap_or_default();
    if lines.is_empty() {
        return Err(desk
            .refuse(&format!("{key}.schedule"), "it is missing")
            .hint("for example \"@daily\"; `respaldo verify JOB` works without any"));
    }
    let schedule = desk.schedule(&format!("{key}.schedule"), &lines, zone, SignedDuration::ZERO)?;
    let days = written.days.unwrap_or(DAYS);
    if !(1..=3650).contains(&days) {
        return Err(desk
            .refuse(&format!("{key}.days"), format!("it can't be {days}"))
            .hint("1 to 3650 days, for example 30"));
    }
    Ok(Verify { schedule, schedule_lines: lines, days })
}
