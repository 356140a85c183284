ALTER TABLE hub.batteries
    ADD COLUMN corrections bigint NOT NULL DEFAULT 0,
    ADD COLUMN deleted_rows bigint NOT NULL DEFAULT 0;
CREATE INDEX corrected_batteries ON hub.batteries (id) WHERE corrections > 0;
COMMENT ON COLUMN hub.batteries.corrections IS 'Revision of the newest line of hub.corrections; 0 before the first.';
COMMENT ON COLUMN hub.batteries.deleted_rows IS 'Rows that were deleted by hand, in all.';

CREATE TABLE hub.corrections (
    battery_id bigint NOT NULL REFERENCES hub.batteries ON DELETE CASCADE,
    revision bigint NOT NULL,
    epoch bigint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('corrected', 'deleted', 'restored')),
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    "rows" bigint NOT NULL,
    author text,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (battery_id, revision)
);
CREATE INDEX deleted_ranges ON hub.corrections (battery_id, epoch, last_seq) WHERE kind = 'deleted';
COMMENT ON TABLE hub.corrections IS 'Journal of rows that were corrected or deleted after they were stored. The bucket rovi_corrections is made from this.';
COMMENT ON COLUMN hub.corrections.revision IS 'Counts the corrections of a battery from 1.';
COMMENT ON COLUMN hub.corrections.epoch IS 'The epoch of the rows; raised with that of a table that goes out again.';
COMMENT ON COLUMN hub.corrections.kind IS 'corrected, deleted, or restored: the bus knew of corrections that this table lacks, as after a restore from a backup.';
COMMENT ON COLUMN hub.corrections.first_seq IS 'First row of the range.';
COMMENT ON COLUMN hub.corrections.last_seq IS 'Last row of the range.';
COMMENT ON COLUMN hub.corrections."rows" IS 'Rows that were there to be changed.';
COMMENT ON COLUMN hub.corrections.author IS 'Who did it, as the request''s header From said.';

CREATE TABLE hub.corrected_rows (
    battery_id bigint NOT NULL,
    revision bigint NOT NULL,
    seq bigint NOT NULL,
    before json NOT NULL,
    PRIMARY KEY (battery_id, revision, seq),
    FOREIGN KEY (battery_id, revision) REFERENCES hub.corrections (battery_id, revision) ON DELETE CASCADE
);
CREATE INDEX corrected_rows_of_seq ON hub.corrected_rows (battery_id, seq, revision);
COMMENT ON TABLE hub.corrected_rows IS 'What rows were before each correction.';
COMMENT ON COLUMN hub.corrected_rows.before IS 'The whole row as it stood in the battery''s table.';
