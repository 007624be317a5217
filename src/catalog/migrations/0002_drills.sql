-- Each backup that was tried by a drill, and what came of it.
CREATE TABLE drills (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    job         TEXT NOT NULL,
    -- NULL: none was found there.
    backup      TEXT,
    destination TEXT NOT NULL,
    run         INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    proven      INTEGER NOT NULL,
    -- How long it took to load.
    seconds     REAL NOT NULL,
    tables      INTEGER NOT NULL,
    rows        INTEGER NOT NULL,
    failure     TEXT
) STRICT;
CREATE INDEX drills_by_job ON drills (job, at);
