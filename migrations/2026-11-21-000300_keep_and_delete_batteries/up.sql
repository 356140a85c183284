ALTER TABLE hub.batteries
    ADD COLUMN first_seq bigint NOT NULL DEFAULT 1,
    ADD COLUMN retention json;
COMMENT ON COLUMN hub.batteries.first_seq IS 'Rows below this seq are gone: removed by retention, or about to be.';
COMMENT ON COLUMN hub.batteries.retention IS 'The battery''s own rule, such as {"max_age": "90days", "max_rows": 1000000}; null: that of the settings.';

ALTER TABLE hub.metadata
    ADD COLUMN revision bigint NOT NULL DEFAULT 1,
    ADD COLUMN fields jsonb;
UPDATE hub.metadata SET fields = body::text::jsonb;
COMMENT ON COLUMN hub.metadata.revision IS 'Raised by every change; hub.metadata_revisions has them all.';
COMMENT ON COLUMN hub.metadata.fields IS 'The body in a form that is quick to search.';

CREATE TABLE hub.metadata_revisions (
    battery_id bigint NOT NULL REFERENCES hub.batteries ON DELETE CASCADE,
    revision bigint NOT NULL,
    body json NOT NULL,
    author text,
    changed timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (battery_id, revision)
);
INSERT INTO hub.metadata_revisions (battery_id, revision, body, changed)
    SELECT battery_id, revision, body, changed FROM hub.metadata;
COMMENT ON TABLE hub.metadata_revisions IS 'Every version that a battery''s metadata ever had.';
COMMENT ON COLUMN hub.metadata_revisions.author IS 'Who made it, as the request''s header From said.';

CREATE FUNCTION hub.field(fields jsonb, path text[]) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (
        SELECT value
        FROM (VALUES
                (1, path), (2, path || ARRAY['name']),
                (3, ARRAY['battery'] || path), (4, ARRAY['battery'] || path || ARRAY['name'])
            ) AS way (rank, steps),
            LATERAL (SELECT fields #> steps AS value) AS found
        WHERE jsonb_typeof(value) IN ('string', 'number', 'boolean')
        ORDER BY rank
        LIMIT 1
    );
COMMENT ON FUNCTION hub.field IS 'Finds a value in metadata by its path, from the top or within battery; an object stands for its name.';

CREATE TABLE hub.deleted_batteries (
    id bigint PRIMARY KEY,
    name text NOT NULL,
    title text,
    epoch bigint NOT NULL,
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    rows_table text,
    estimates_table text,
    metadata json,
    estimators text[] NOT NULL,
    journal json NOT NULL,
    deleted timestamptz NOT NULL DEFAULT now(),
    cleaned timestamptz
);
CREATE INDEX deleted_batteries_of_name ON hub.deleted_batteries (name, epoch);
CREATE INDEX deleted_batteries_to_clean ON hub.deleted_batteries (id) WHERE cleaned IS NULL;
COMMENT ON TABLE hub.deleted_batteries IS 'Lives of names that are over.';
COMMENT ON COLUMN hub.deleted_batteries.id IS 'What the battery''s id in hub.batteries was.';
COMMENT ON COLUMN hub.deleted_batteries.rows_table IS 'Where its rows are kept in schema battery; null if they were dropped or there were none.';
COMMENT ON COLUMN hub.deleted_batteries.estimates_table IS 'Where its estimates are kept in schema estimates; null if they were dropped or there were none.';
COMMENT ON COLUMN hub.deleted_batteries.metadata IS 'Its last metadata.';
COMMENT ON COLUMN hub.deleted_batteries.estimators IS 'Names of the estimators that ended with it.';
COMMENT ON COLUMN hub.deleted_batteries.journal IS 'Its lines of hub.table_changes.';
COMMENT ON COLUMN hub.deleted_batteries.cleaned IS 'When nothing of it was left on the bus.';

CREATE FUNCTION hub.begin_epoch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Waits for a deletion of the name, which holds this lock, so that its epoch is seen below.
    PERFORM pg_advisory_xact_lock(hashtextextended('hub.batteries.' || NEW.name, 0));
    SELECT greatest(NEW.epoch, max(epoch) + 1) INTO NEW.epoch
        FROM hub.deleted_batteries WHERE name = NEW.name;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION hub.begin_epoch IS 'Begins a name that was used before with an epoch greater than any of its past.';
CREATE TRIGGER begin_epoch BEFORE INSERT ON hub.batteries
    FOR EACH ROW EXECUTE FUNCTION hub.begin_epoch();
