-- Times are milliseconds since 1970 in UTC.
CREATE TABLE facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE runs (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    job          TEXT NOT NULL,
    kind         TEXT NOT NULL,
    state        TEXT NOT NULL,
    trigger      TEXT NOT NULL,
    label        TEXT,
    attempt      INTEGER NOT NULL DEFAULT 1,
    requested_at INTEGER NOT NULL,
    not_before   INTEGER NOT NULL,
    started_at   INTEGER,
    finished_at  INTEGER,
    heartbeat_at INTEGER,
    backup       TEXT,
    error        TEXT,
    hint         TEXT,
    warnings     TEXT NOT NULL DEFAULT '[]',
    plain_bytes  INTEGER NOT NULL DEFAULT 0,
    stored_bytes INTEGER NOT NULL DEFAULT 0,
    total_bytes  INTEGER,
    cancel       INTEGER NOT NULL DEFAULT 0,
    log          TEXT
) STRICT;
CREATE INDEX runs_by_state ON runs (state, not_before);
CREATE INDEX runs_by_job ON runs (job, id);

-- What became of each destination in a run.
CREATE TABLE deliveries (
    run         INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    destination TEXT NOT NULL,
    error       TEXT,
    PRIMARY KEY (run, destination)
) STRICT;

CREATE TABLE backups (
    job      TEXT NOT NULL,
    id       TEXT NOT NULL,
    kind     TEXT NOT NULL,
    started  INTEGER NOT NULL,
    manifest TEXT NOT NULL,
    PRIMARY KEY (job, id)
) STRICT;

CREATE TABLE copies (
    job         TEXT NOT NULL,
    id          TEXT NOT NULL,
    destination TEXT NOT NULL,
    pinned      INTEGER NOT NULL DEFAULT 0,
    proven      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job, id, destination),
    FOREIGN KEY (job, id) REFERENCES backups (job, id) ON DELETE CASCADE
) STRICT;

-- Multipart uploads that would stay open in the store if the process died.
CREATE TABLE uploads (
    destination TEXT NOT NULL,
    upload      TEXT NOT NULL,
    key         TEXT NOT NULL,
    PRIMARY KEY (destination, upload)
) STRICT;

-- Messages stay here until they are sent.
CREATE TABLE outbox (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    route    TEXT NOT NULL,
    event    TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at  INTEGER NOT NULL,
    sent_at  INTEGER,
    error    TEXT
) STRICT;

-- The policy of the last prune that was carried out.
CREATE TABLE policies (
    job         TEXT NOT NULL,
    destination TEXT NOT NULL,
    policy      TEXT NOT NULL,
    PRIMARY KEY (job, destination)
) STRICT;
