//! The settings by which a server recovers. Knows PostgreSQL's words and how they are quoted; must not
//! know files.

use crate::fault::{Fault, Result};
use crate::model::PhysicalFacts;
use crate::wal::Moment;

/// Where a server has its settings elsewhere.
pub(super) const CONF: &str = "\
# Written by respaldo: the server that was backed up has its settings outside of its data folder.
# What recovery needs is in postgresql.auto.conf.
";
pub(super) const HBA: &str = "\
# Written by respaldo: the server that was backed up has this file elsewhere.
local all all peer
";
pub(super) const IDENT: &str =
    "# Written by respaldo: the server that was backed up has this file elsewhere.\n";

/// Settings of an earlier recovery, of a standby, or of ours.
const OF_RECOVERY: [&str; 6] = [
    "recovery_",
    "restore_command",
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
];

/// What was set for another recovery would now lead elsewhere, or keep the server from starting.
pub(super) fn without_recovery(text: &str) -> String {
    let is_of_recovery = |line: &&str| {
        let name = line.trim_start().to_ascii_lowercase();
        OF_RECOVERY.iter().any(|prefix| name.starts_with(prefix))
    };
    let kept = text.lines().map(|line| match is_of_recovery(&line) {
        true => format!("# {line}\n"),
        false => format!("{line}\n"),
    });
    kept.collect()
}

/// What is added to `postgresql.auto.conf`; `timeline` where it is not the base backup's.
pub(super) fn recovery(
    facts: &PhysicalFacts,
    moment: &Moment,
    timeline: Option<u32>,
) -> Result<String> {
    let timeline = timeline.map_or("current".to_owned(), |timeline| timeline.to_string());
    let mut lines = vec![
        "# Written by respaldo, for this recovery. All of the log is in pg_wal: there is nothing to fetch.".to_owned(),
        set("restore_command", "false"),
        set("recovery_target_timeline", &timeline),
        set("recovery_target_action", "promote"),
    ];
    let (target, inclusive) = match moment {
        Moment::Latest => (None, true),
        Moment::Time(time) => {
            let text = time.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string();
            (Some(set("recovery_target_time", &text)), true)
        }
        // Everything before it: what begins there is not wanted any more.
        Moment::Lsn(lsn) => (Some(set("recovery_target_lsn", &lsn.to_string())), false),
        Moment::Name(name) => {
            if name.is_empty() || name.len() > 63 || name.contains(char::is_control) {
                return Err(Fault::usage(format!("{name:?} is no restore point's name")));
            }
            (Some(set("recovery_target_name", name)), true)
        }
    };
    lines.extend(target);
    lines.push(set("recovery_target_inclusive", if inclusive { "on" } else { "off" }));
    lines.push(
        "# As high as the server had them, or it would not recover. Afterwards they may go: ALTER SYSTEM RESET ...;"
            .to_owned(),
    );
    for (name, value) in &facts.settings {
        let is_name = name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
        let is_number = !value.is_empty() && value.bytes().all(|c| c.is_ascii_digit());
        if !is_name || !is_number || name.starts_with("recovery_") {
            return Err(Fault::permanent(format!(
                "the backup names a setting {name:?} that is none"
            )));
        }
        lines.push(set(name, value));
    }
    Ok(lines.join("\n") + "\n")
}

fn set(name: &str, value: &str) -> String {
    format!("{name} = '{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Lsn, SegmentSize};

    fn facts(settings: &[(&str, &str)]) -> PhysicalFacts {
        PhysicalFacts {
            timeline: 1,
            start_lsn: Lsn(1),
            stop_lsn: Lsn(2),
            segment_bytes: SegmentSize::USUAL,
            since: None,
            checksums: None,
            tablespaces: vec![],
            settings: settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn a_moment_is_one_setting_and_quoted() {
        let facts = facts(&[("max_connections", "300")]);
        let text = recovery(&facts, &Moment::Name("it's".into()), Some(3)).unwrap();
        assert!(text.contains("recovery_target_name = 'it''s'"), "{text}");
        assert!(text.contains("recovery_target_timeline = '3'"), "{text}");
        assert!(text.contains("max_connections = '300'"), "{text}");
        let time = "2025-11-24T19:30:00.25Z".parse().unwrap();
        let text = recovery(&facts, &Moment::Time(time), None).unwrap();
        assert!(text.contains("recovery_target_time = '2025-11-24 19:30:00.250000+00'"), "{text}");
        let text = recovery(&facts, &Moment::Lsn(Lsn(0x10)), None).unwrap();
        assert!(text.contains("recovery_target_inclusive = 'off'"), "{text}");
        assert!(recovery(&facts, &Moment::Name("a\nb".into()), None).is_err());
    }

    #[test]
    fn a_setting_that_is_none_is_refused() {
        for (name, value) in [("max_connections", "1'\nx = '"), ("a b", "1"), ("recovery_x", "1")] {
            assert!(recovery(&facts(&[(name, value)]), &Moment::Latest, None).is_err(), "{name}");
        }
    }

    #[test]
    fn an_earlier_recovery_is_forgotten() {
        let text =
            "max_connections = 10\n recovery_target_time = 'x'\nPrimary_Conninfo = 'password=x'\n";
        let kept = without_recovery(text);
        assert!(kept.starts_with("max_connections = 10\n#  recovery_target_time"), "{kept}");
        assert!(kept.contains("\n# Primary_Conninfo"), "{kept}");
    }
}
