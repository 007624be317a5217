-- Who may come in. Of a token only its SHA-256 is here: whoever reads this can't use it.
CREATE TABLE tokens (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL,
    role       TEXT NOT NULL,
    digest     BLOB NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    -- NULL: never.
    expires_at INTEGER,
    used_at    INTEGER,
    revoked_at INTEGER
) STRICT;
-- A name is free again once its token is revoked.
CREATE UNIQUE INDEX tokens_by_name ON tokens (name) WHERE revoked_at IS NULL;

-- Who did what, when, from where. A deed has two rows, its intent and its outcome; nothing is ever
-- changed or deleted here.
CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    -- An IP address, or `local`.
    origin  TEXT NOT NULL,
    action  TEXT NOT NULL,
    outcome TEXT NOT NULL,
    -- The row of the intent whose outcome this is.
    intent  INTEGER,
    job     TEXT,
    subject TEXT,
    detail  TEXT
) STRICT;
CREATE INDEX audit_by_time ON audit (at);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq)
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
