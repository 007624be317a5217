-- What restores have replaced and not yet removed, so that it can be undone.
CREATE TABLE kept (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    job     TEXT NOT NULL,
    engine  TEXT NOT NULL,
    source  TEXT NOT NULL,
    current TEXT NOT NULL,
    kept    TEXT NOT NULL,
    backup  TEXT NOT NULL,
    at      INTEGER NOT NULL
) STRICT;
