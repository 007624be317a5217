//! As in `refusals`, for the keys of what becomes of backups once they are made.

use super::PLAIN;
use super::refusals::{check, jobs};

#[test]
fn what_a_job_and_its_destinations_keep() {
    let with = |line: &str| format!("source = {{ sqlite = '/x' }}\n{line}");
    jobs(&[
        (&with("anomaly = '0%'"), &["jobs.db.anomaly can't be \"0%\"", "1% to 99%, or off", "50%"]),
        (&with("anomaly = 'half'"), &["jobs.db.anomaly can't be \"half\""]),
        (&with("anomaly = 50"), &["jobs.db.anomaly is 50", "anomaly = \"50%\""]),
        (&with("sync = '@hourly'"), &["jobs.db.sync", "true or false"]),
        (
            &with("keep = { local = { accept = 'montly' } }"),
            &["jobs.db.keep.local.accept", "did you mean monthly?", "daily, weekly"],
        ),
        (
            &with("keep = { local = { accept = 'monthly' } }"),
            &["jobs.db.keep", "takes only some backups", "leave accept away on one"],
        ),
    ]);
    check(&[
        (
            &format!("{PLAIN}[sync]\nschedule = '61 * * * *'"),
            &["sync.schedule", "'61 * * * *' is not a cron", "five fields"],
        ),
        (&format!("sync = false\n{PLAIN}"), &["sync is false", "a table is wanted"]),
        (
            &format!("{PLAIN}[destinations.x]\nurl = 'file:///y'\noffsite = 'far'"),
            &["destinations.x.offsite", "true or false"],
        ),
    ]);
}
