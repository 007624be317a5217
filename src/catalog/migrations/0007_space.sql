-- Free space of each destination, and of the data folder, as it was seen.
CREATE TABLE space (
    destination TEXT NOT NULL,
    at          INTEGER NOT NULL,
    free        INTEGER NOT NULL,
    total       INTEGER NOT NULL,
    PRIMARY KEY (destination, at)
) STRICT, WITHOUT ROWID;

-- How much a copy takes, so that nobody reads every manifest for a sum.
ALTER TABLE copies ADD COLUMN stored_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE copies SET stored_bytes = coalesce((
    SELECT sum(json_extract(artifact.value, '$.stored_bytes'))
    FROM backups b, json_each(b.manifest, '$.artifacts') artifact
    WHERE b.job = copies.job AND b.id = copies.id), 0);
CREATE INDEX copies_by_place ON copies (job, destination, stored_bytes);
CREATE INDEX copies_proven ON copies (job, id) WHERE proven;

CREATE INDEX backups_by_start ON backups (job, kind, started);
CREATE INDEX runs_by_outcome ON runs (job, kind, state, finished_at);
