-- Each time that a copy was read back, and what was found: the newest of a copy is what is known of it.
CREATE TABLE checks (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    job         TEXT NOT NULL,
    id          TEXT NOT NULL,
    destination TEXT NOT NULL,
    at          INTEGER NOT NULL,
    ok          INTEGER NOT NULL,
    depth       TEXT NOT NULL,
    error       TEXT
) STRICT;
CREATE INDEX checks_by_copy ON checks (job, id, destination, seq);

-- What was deleted from a destination: `pruned`, or `erased` where only a part of a backup went.
CREATE TABLE removals (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    job         TEXT NOT NULL,
    id          TEXT NOT NULL,
    destination TEXT NOT NULL,
    at          INTEGER NOT NULL,
    what        TEXT NOT NULL
) STRICT;
CREATE INDEX removals_by_job ON removals (job, at);
