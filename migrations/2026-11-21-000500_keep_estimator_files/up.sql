ALTER TABLE hub.estimators ADD COLUMN required_time double precision NOT NULL DEFAULT 0;
COMMENT ON COLUMN hub.estimators.required_time IS 'Span of history in seconds that a script''s offline estimation gets before its estimator is made; 0 for none.';

CREATE TABLE hub.estimator_files (
    battery_id bigint NOT NULL,
    estimator text NOT NULL,
    place integer NOT NULL,
    name text NOT NULL,
    digest text NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (battery_id, estimator, name),
    FOREIGN KEY (battery_id, estimator) REFERENCES hub.estimators (battery_id, name) ON DELETE CASCADE
);
CREATE INDEX estimator_files_by_digest ON hub.estimator_files (digest);
COMMENT ON TABLE hub.estimator_files IS 'Companion files of estimators that are Python scripts. The object store rovi_files is made from this.';
COMMENT ON COLUMN hub.estimator_files.place IS 'Place among the files of the registration, from 0.';
COMMENT ON COLUMN hub.estimator_files.name IS 'Name in the script''s folder, without a path.';
COMMENT ON COLUMN hub.estimator_files.digest IS 'SHA-256 of the content in hexadecimal; the name in the object store.';
