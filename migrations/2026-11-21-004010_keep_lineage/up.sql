CREATE TABLE hub.lineage (
    battery_id bigint NOT NULL REFERENCES hub.batteries ON DELETE CASCADE,
    estimator text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    revision bigint NOT NULL,
    generation bigint NOT NULL,
    code_version text COLLATE "C" NOT NULL,
    definition text NOT NULL,
    horizon double precision NOT NULL,
    rows_from bigint NOT NULL,
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    PRIMARY KEY (battery_id, estimator, epoch, revision, generation, code_version)
) WITH (fillfactor = 50);
COMMENT ON TABLE hub.lineage IS 'What made the lines of estimates."<battery>": a line for each registration, generation and version of the program.';
COMMENT ON COLUMN hub.lineage.generation IS '1 for the first pass over the rows; a recomputation has the moment it was decided, in µs since 1970.';
COMMENT ON COLUMN hub.lineage.code_version IS 'Version of the twin.';
COMMENT ON COLUMN hub.lineage.definition IS 'SHA-256 of the estimator''s document or script, in hexadecimal.';
COMMENT ON COLUMN hub.lineage.horizon IS 'How far rows could be late and still count, in s of test_time.';
COMMENT ON COLUMN hub.lineage.rows_from IS 'First row that the estimator was given.';
COMMENT ON COLUMN hub.lineage.first_seq IS 'First row of which it told.';
COMMENT ON COLUMN hub.lineage.last_seq IS 'Last row of which it told.';

CREATE TABLE hub.estimator_revisions (
    battery_id bigint NOT NULL REFERENCES hub.batteries ON DELETE CASCADE,
    estimator text NOT NULL,
    revision bigint NOT NULL,
    definition text NOT NULL,
    valid_from double precision NOT NULL,
    required_time double precision NOT NULL,
    deleted boolean NOT NULL,
    changed timestamptz NOT NULL,
    PRIMARY KEY (battery_id, estimator, revision)
);
COMMENT ON TABLE hub.estimator_revisions IS 'Every registration that ever was in hub.estimators; kept by a trigger.';
CREATE TABLE hub.kept_files (
    digest text PRIMARY KEY,
    content bytea NOT NULL
);
COMMENT ON TABLE hub.kept_files IS 'Files of every registration that ever was, each once.';
COMMENT ON COLUMN hub.kept_files.digest IS 'SHA-256 of the content in hexadecimal.';
CREATE TABLE hub.estimator_revision_files (
    battery_id bigint NOT NULL,
    estimator text NOT NULL,
    revision bigint NOT NULL,
    place integer NOT NULL,
    name text NOT NULL,
    digest text NOT NULL REFERENCES hub.kept_files,
    PRIMARY KEY (battery_id, estimator, revision, name),
    FOREIGN KEY (battery_id, estimator, revision) REFERENCES hub.estimator_revisions ON DELETE CASCADE
);
COMMENT ON TABLE hub.estimator_revision_files IS 'Which files each registration had.';

CREATE FUNCTION hub.keep_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO hub.estimator_revisions
        (battery_id, estimator, revision, definition, valid_from, required_time, deleted, changed)
    VALUES (NEW.battery_id, NEW.name, NEW.revision, NEW.definition, NEW.valid_from,
        NEW.required_time, NEW.deleted, NEW.changed)
    ON CONFLICT DO NOTHING;
    -- The same registration under another revision, as after a restore from a backup.
    IF TG_OP = 'UPDATE' AND NEW.changed = OLD.changed THEN
        INSERT INTO hub.estimator_revision_files
            (battery_id, estimator, revision, place, name, digest)
        SELECT battery_id, estimator, NEW.revision, place, name, digest
        FROM hub.estimator_files WHERE battery_id = NEW.battery_id AND estimator = NEW.name
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION hub.keep_revision IS 'Keeps every registration in hub.estimator_revisions.';
CREATE TRIGGER keep_revision AFTER INSERT OR UPDATE ON hub.estimators
    FOR EACH ROW EXECUTE FUNCTION hub.keep_revision();

CREATE FUNCTION hub.keep_file() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO hub.kept_files (digest, content) VALUES (NEW.digest, NEW.content)
    ON CONFLICT DO NOTHING;
    INSERT INTO hub.estimator_revision_files
        (battery_id, estimator, revision, place, name, digest)
    SELECT NEW.battery_id, NEW.estimator, revision, NEW.place, NEW.name, NEW.digest
    FROM hub.estimators WHERE battery_id = NEW.battery_id AND name = NEW.estimator
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION hub.keep_file IS 'Keeps the files of every registration.';
CREATE TRIGGER keep_file AFTER INSERT ON hub.estimator_files
    FOR EACH ROW EXECUTE FUNCTION hub.keep_file();

INSERT INTO hub.estimator_revisions
    (battery_id, estimator, revision, definition, valid_from, required_time, deleted, changed)
    SELECT battery_id, name, revision, definition, valid_from, required_time, deleted, changed
    FROM hub.estimators;
INSERT INTO hub.kept_files (digest, content)
    SELECT digest, content FROM hub.estimator_files ON CONFLICT DO NOTHING;
INSERT INTO hub.estimator_revision_files (battery_id, estimator, revision, place, name, digest)
    SELECT f.battery_id, f.estimator, e.revision, f.place, f.name, f.digest
    FROM hub.estimator_files f
    JOIN hub.estimators e ON e.battery_id = f.battery_id AND e.name = f.estimator;
