-- What a message is about, so that the same again takes its place while it waits.
ALTER TABLE outbox ADD COLUMN job TEXT NOT NULL DEFAULT '';
ALTER TABLE outbox ADD COLUMN kind TEXT NOT NULL DEFAULT '';
ALTER TABLE outbox ADD COLUMN about TEXT NOT NULL DEFAULT '';
ALTER TABLE outbox ADD COLUMN posted_at INTEGER NOT NULL DEFAULT 0;
-- Until next_at. 'fold': the same was told a while ago; 'limit': enough was said within the hour;
-- 'retry': it could not be sent; NULL: it is new, or somebody is sending it.
ALTER TABLE outbox ADD COLUMN waits TEXT;
-- It went out within the message of that id.
ALTER TABLE outbox ADD COLUMN part_of INTEGER;
UPDATE outbox SET posted_at = next_at;

-- Trouble that goes on, as each route was told of it.
CREATE TABLE folds (
    route    TEXT NOT NULL,
    job      TEXT NOT NULL,
    kind     TEXT NOT NULL,
    about    TEXT NOT NULL,
    count    INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    told_at  INTEGER NOT NULL,
    PRIMARY KEY (route, job, kind, about)
) STRICT;
