//! What `/metrics` may tell: each family's name, labels and meaning, in the order of the page. Knows no
//! value.

/// One metric, by whatever labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// A counter's without the `_total` that its samples bear.
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    /// Without a full stop: the page adds it.
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    /// It only rises.
    Counter,
}

macro_rules! families {
    ($($family:ident = $kind:ident $name:literal $labels:tt $help:literal;)+) => {
        $(pub(super) const $family: Family =
            Family { name: $name, kind: Kind::$kind, labels: &$labels, help: $help };)+
        /// All of them.
        pub const FAMILIES: &[Family] = &[$($family),+];
    };
}

families! {
    BUILD_INFO = Gauge "respaldo_build_info" ["version"]
        "The version that runs";
    RESIDENT_MEMORY = Gauge "process_resident_memory_bytes" []
        "Memory of the daemon alone";
    JOB_STATUS = Gauge "respaldo_job_status" ["job", "status"]
        "1 for the status that the job has, as in /health";
    LAST_SUCCESS = Gauge "respaldo_last_success_timestamp_seconds" ["job", "destination"]
        "When the newest backup on the destination was started";
    RPO = Gauge "respaldo_rpo_seconds" ["job"]
        "Age of the newest backup that is on every destination: what would be lost now";
    MAX_AGE = Gauge "respaldo_max_age_seconds" ["job"]
        "How old the newest backup may become";
    LAST_PROVEN = Gauge "respaldo_last_proven_timestamp_seconds" ["job"]
        "When a backup was last proven to restore";
    NEXT_RUN = Gauge "respaldo_next_run_timestamp_seconds" ["job", "kind"]
        "When the next run of that kind is due";
    BACKUP_DURATION = Gauge "respaldo_backup_duration_seconds" ["job"]
        "How long the newest backup took";
    BACKUP_STORED = Gauge "respaldo_backup_stored_bytes" ["job"]
        "The newest backup as it is stored";
    BACKUP_PLAIN = Gauge "respaldo_backup_plain_bytes" ["job"]
        "The newest backup as it was read";
    COPIES = Gauge "respaldo_copies" ["job"]
        "Copies of the newest backup; the original is one";
    COPIES_MET = Gauge "respaldo_copies_met" ["job"]
        "1: three copies, on two kinds of media, one off-site";
    BACKUPS = Gauge "respaldo_backups" ["job", "destination"]
        "Backups on the destination";
    BACKUPS_STORED = Gauge "respaldo_backups_stored_bytes" ["job", "destination"]
        "What the backups on the destination take";
    RUNS = Counter "respaldo_runs" ["job", "kind", "state"]
        "Runs that are over, by how they ended";
    LAST_FAILURE = Gauge "respaldo_last_failure_timestamp_seconds" ["job"]
        "When a backup last failed, was interrupted or missed a destination";
    QUEUE_LENGTH = Gauge "respaldo_queue_length" []
        "Runs that wait for their turn";
    RUNNING_RUNS = Gauge "respaldo_running_runs" []
        "Runs that go on";
    UNSENT_MESSAGES = Gauge "respaldo_unsent_messages" []
        "Messages that wait to be sent";
    LAST_DRILL_PROVEN = Gauge "respaldo_last_drill_proven" ["job", "destination"]
        "1: the last drill there proved a backup";
    LAST_DRILL = Gauge "respaldo_last_drill_timestamp_seconds" ["job", "destination"]
        "When the last drill there ended";
    RESTORE_SECONDS = Gauge "respaldo_restore_seconds" ["job"]
        "How long the last proven drill took to load: the RTO";
    PROVEN_ROWS = Gauge "respaldo_proven_rows" ["job"]
        "Rows that the last proven drill found as they were";
    WAL_SAFE = Gauge "respaldo_wal_safe_timestamp_seconds" ["job"]
        "Whatever the server committed before this is stored";
    WAL_LAG = Gauge "respaldo_wal_lag_bytes" ["job"]
        "What the server had written and was not stored yet";
    WAL_RETAINED = Gauge "respaldo_wal_retained_bytes" ["job"]
        "What the server keeps for the job's slot";
    WAL_GAPS = Gauge "respaldo_wal_gaps" ["job"]
        "Gaps that were recorded in the job's log";
    FREE = Gauge "respaldo_destination_free_bytes" ["destination"]
        "Free space; also of (data_dir)";
    TOTAL = Gauge "respaldo_destination_total_bytes" ["destination"]
        "The whole of it";
    LOW = Gauge "respaldo_destination_low" ["destination"]
        "1: less is free than should be";
    FILLS = Gauge "respaldo_destination_fills_timestamp_seconds" ["destination"]
        "When it is full if it goes on as in the last two weeks";
}
