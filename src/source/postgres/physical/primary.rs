//! What a primary says of its log, and the slot that keeps it. Knows SQL and what each version lacks;
//! must not know what is stored where.

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row};

use super::Physical;
use crate::fault::{Context, Fault, Result};
use crate::model::{Lsn, SegmentSize, Tablespace};

/// A session on the server.
pub struct Primary {
    connection: PgConnection,
    pub major: u32,
    pub system_id: String,
    pub timeline: u32,
    pub segment_bytes: SegmentSize,
    /// Its pages have checksums.
    pub checksums: bool,
    /// It notes which blocks change; before version 17 none does.
    pub summarizes: bool,
    /// How many bytes a slot may keep; None: nothing bounds them.
    pub retained_most: Option<u64>,
}

/// How far the server is, and how far we are behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// What the server has made durable itself.
    pub server: Lsn,
    /// When it was there, by its own clock.
    pub at: Timestamp,
    /// What our receiver has made durable; None: it is not connected.
    pub received: Option<Lsn>,
    pub slot: Option<Slot>,
}

/// The slot that keeps the log until it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// From here on nothing is removed; None: it was given up by the server.
    pub restart: Option<Lsn>,
    /// How many bytes it makes the server keep.
    pub retained: u64,
    /// PostgreSQL's `wal_status`, of version 13 and newer.
    pub status: Option<String>,
}

impl Slot {
    /// What it was to keep is gone.
    pub fn is_lost(&self) -> bool {
        self.restart.is_none() || self.status.as_deref() == Some("lost")
    }
}

/// Settings that a recovering server must have at least as high as the primary had.
const RECOVERY_SETTINGS: &str = "SELECT name, setting FROM pg_settings WHERE name IN ('max_connections',
    'max_worker_processes', 'max_wal_senders', 'max_prepared_transactions', 'max_locks_per_transaction')
    ORDER BY name";

impl Primary {
    /// Connects, and refuses a server that can't be backed up whole, with the SQL that mends it.
    pub async fn connect(physical: &Physical) -> Result<Self> {
        let postgres = &physical.postgres;
        let mut connection = postgres.connect(&postgres.database).await?;
        let doing = "ask the server about its log";
        let row = sqlx::query(
            "SELECT current_setting('server_version_num')::int AS num, pg_is_in_recovery() AS standby,
                    (SELECT system_identifier::text FROM pg_control_system()) AS system,
                    (SELECT setting::bigint * CASE unit WHEN '8kB' THEN 8192 ELSE 1 END
                     FROM pg_settings WHERE name = 'wal_segment_size') AS segment,
                    current_setting('wal_level') AS wal_level,
                    current_setting('data_checksums')::bool AS checksums,
                    current_setting('summarize_wal', true)::bool AS summarizes,
                    (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS bound,
                    (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user) AS may,
                    pg_has_role(current_user, 'pg_monitor', 'USAGE') AS monitors",
        )
        .fetch_one(&mut connection)
        .await
        .transient(doing)?;
        let (number, standby): (i32, bool) =
            (row.try_get("num").context(doing)?, row.try_get("standby").context(doing)?);
        let major = u32::try_from(number / 10_000).unwrap_or(0);
        let get = |name: &str| row.try_get::<Option<String>, _>(name).ok().flatten();
        let flag = |name: &str| row.try_get::<Option<bool>, _>(name).ok().flatten() == Some(true);
        let user = &postgres.user;
        if standby {
            return Err(Fault::permanent("the server is a standby")
                .hint("name the primary: base backups and slots are its"));
        }
        if major < 13 {
            return Err(Fault::permanent(format!(
                "PostgreSQL {major} is too old to be backed up whole"
            ))
            .hint("PostgreSQL 13 and newer can be; take a logical backup of this one"));
        }
        if get("wal_level").as_deref() == Some("minimal") {
            return Err(Fault::permanent("the server's wal_level is minimal")
                .hint("ALTER SYSTEM SET wal_level = 'replica'; and restart the server"));
        }
        if !flag("may") {
            return Err(Fault::permanent(format!("the role '{user}' may not replicate"))
                .hint(format!("ALTER ROLE \"{user}\" REPLICATION;")));
        }
        if !flag("monitors") {
            return Err(Fault::permanent(format!(
                "the role '{user}' may not see how far the log is"
            ))
            .hint(format!("GRANT pg_monitor TO \"{user}\";")));
        }
        // In megabytes; -1: nothing bounds it.
        let bound = row.try_get::<Option<i64>, _>("bound").ok().flatten();
        let retained_most = bound.and_then(|bound| u64::try_from(bound).ok()).map(|mb| mb << 20);
        if retained_most.is_none() && !physical.allow_unbounded_slot {
            return Err(Fault::permanent(
                "the server's max_slot_wal_keep_size is -1: a slot that nobody reads would fill its disk",
            )
            .hint("ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; SELECT pg_reload_conf(); -- or set allow_unbounded_slot on the source"));
        }
        let segment: i64 = row.try_get("segment").context(doing)?;
        let timeline: String =
            sqlx::query_scalar("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)")
                .fetch_one(&mut connection)
                .await
                .transient(doing)?;
        Ok(Self {
            major,
            system_id: get("system")
                .ok_or_else(|| Fault::permanent("the server has no identifier"))?,
            timeline: u32::from_str_radix(&timeline, 16).context(doing)?,
            segment_bytes: SegmentSize::try_from(segment.unsigned_abs())?,
            checksums: flag("checksums"),
            summarizes: flag("summarizes"),
            retained_most,
            connection,
        })
    }

    pub async fn close(self) {
        self.connection.close().await.ok();
    }

    /// How far everything is. `receiver` is the name that ours goes by.
    pub async fn sample(&mut self, receiver: &str, slot: &str) -> Result<Sample> {
        let doing = "ask how far the log is";
        let row = sqlx::query(
            "SELECT pg_current_wal_flush_lsn()::text AS server, s.slot_name IS NOT NULL AS exists,
                    (SELECT max(flush_lsn)::text FROM pg_stat_replication
                     WHERE application_name = $1) AS received,
                    s.restart_lsn::text AS restart, s.wal_status AS status,
                    pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint AS retained,
                    -- Behind the position: at this time the server was there, or further.
                    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS micros
             FROM (SELECT 1) one LEFT JOIN pg_replication_slots s ON s.slot_name = $2",
        )
        .bind(receiver)
        .bind(slot)
        .fetch_one(&mut self.connection)
        .await
        .transient(doing)?;
        let lsn = |name: &str| -> Result<Option<Lsn>> {
            let text: Option<String> = row.try_get(name).context(doing)?;
            text.map(|text| text.parse()).transpose()
        };
        let slot = match row.try_get("exists").context(doing)? {
            false => None,
            true => Some(Slot {
                restart: lsn("restart")?,
                retained: row
                    .try_get::<Option<i64>, _>("retained")
                    .context(doing)?
                    .unwrap_or(0)
                    .max(0)
                    .unsigned_abs(),
                status: row.try_get("status").context(doing)?,
            }),
        };
        let server = lsn("server")?.ok_or_else(|| Fault::transient(doing))?;
        let micros: i64 = row.try_get("micros").context(doing)?;
        let at = Timestamp::from_microsecond(micros).context(doing)?;
        Ok(Sample { server, at, received: lsn("received")?, slot })
    }

    /// Makes the slot, which keeps the log from this moment on.
    pub async fn make_slot(&mut self, slot: &str) -> Result<()> {
        let made = sqlx::query("SELECT pg_create_physical_replication_slot($1, true)");
        made.bind(slot).execute(&mut self.connection).await.map(drop).map_err(|error| {
            Fault::transient("make the replication slot")
                .cause(error)
                .hint("is max_replication_slots used up? SELECT * FROM pg_replication_slots;")
        })
    }

    /// Lets the server remove what lies before `to`.
    pub async fn advance_slot(&mut self, slot: &str, to: Lsn) -> Result<()> {
        sqlx::query("SELECT pg_replication_slot_advance($1, $2::pg_lsn)")
            .bind(slot)
            .bind(to.to_string())
            .execute(&mut self.connection)
            .await
            .map(drop)
            .transient("advance the replication slot")
    }

    /// Whether there was one.
    pub async fn drop_slot(&mut self, slot: &str) -> Result<bool> {
        let dropped = sqlx::query(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1",
        )
        .bind(slot)
        .execute(&mut self.connection)
        .await
        .transient("drop the replication slot")?;
        Ok(dropped.rows_affected() > 0)
    }

    /// Ends the segment that is being written, so that it can be stored whole.
    pub async fn switch(&mut self) -> Result<()> {
        sqlx::query("SELECT pg_switch_wal()")
            .execute(&mut self.connection)
            .await
            .map(drop)
            .transient("switch to the next WAL segment")
    }

    pub(super) async fn tablespaces(&mut self) -> Result<Vec<Tablespace>> {
        let rows: Vec<(i64, String)> = sqlx::query_as(
            "SELECT oid::bigint, pg_tablespace_location(oid) FROM pg_tablespace
             WHERE pg_tablespace_location(oid) <> '' ORDER BY oid",
        )
        .fetch_all(&mut self.connection)
        .await
        .transient("list the tablespaces")?;
        let tablespace = |(oid, location): (i64, String)| -> Result<Tablespace> {
            Ok(Tablespace { oid: u32::try_from(oid).context("read a tablespace's oid")?, location })
        };
        rows.into_iter().map(tablespace).collect()
    }

    pub(super) async fn recovery_settings(&mut self) -> Result<Vec<(String, String)>> {
        let settings = sqlx::query_as(RECOVERY_SETTINGS).fetch_all(&mut self.connection);
        settings.await.transient("read the server's settings")
    }

    /// Version, and the size of all databases in bytes.
    pub(super) async fn version_and_size(&mut self) -> Result<(String, u64)> {
        let sql = "SELECT current_setting('server_version'),
                   (SELECT sum(pg_tablespace_size(oid))::bigint FROM pg_tablespace)";
        let (version, size): (String, Option<i64>) = sqlx::query_as(AssertSqlSafe(sql))
            .fetch_one(&mut self.connection)
            .await
            .transient("ask the server how large it is")?;
        Ok((version, size.unwrap_or(0).max(0).unsigned_abs()))
    }
}
