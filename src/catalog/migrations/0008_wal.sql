-- How far the write-ahead log of a physical job is stored, as its keeper last saw it.
CREATE TABLE wal (
    job      TEXT PRIMARY KEY,
    progress TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Where the log has a hole that nothing fills any more.
CREATE TABLE wal_gaps (
    job       TEXT NOT NULL,
    system_id TEXT NOT NULL,
    timeline  INTEGER NOT NULL,
    from_lsn  TEXT NOT NULL,
    to_lsn    TEXT NOT NULL,
    at        INTEGER NOT NULL,
    reason    TEXT NOT NULL,
    PRIMARY KEY (job, system_id, timeline, from_lsn)
) STRICT, WITHOUT ROWID;
