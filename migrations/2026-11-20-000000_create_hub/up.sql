CREATE SCHEMA hub;
COMMENT ON SCHEMA hub IS 'The Data Hub''s own tables.';
CREATE SCHEMA battery;
COMMENT ON SCHEMA battery IS 'One table a battery: its rows in the order they were stored.';
CREATE SCHEMA estimates;
COMMENT ON SCHEMA estimates IS 'One table a battery: what its estimators said after each row.';

CREATE TABLE hub.batteries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    title text UNIQUE,
    epoch bigint NOT NULL DEFAULT 1,
    last_seq bigint NOT NULL DEFAULT 0,
    relayed_seq bigint NOT NULL DEFAULT 0,
    segment integer NOT NULL DEFAULT 0,
    latest_test_time double precision,
    form bigint NOT NULL DEFAULT 0,
    created timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
COMMENT ON TABLE hub.batteries IS 'Every battery that was registered or has rows. Locking its line is taking its turn to write.';
COMMENT ON COLUMN hub.batteries.name IS 'Name of the tables in schemas battery and estimates, and of the subjects.';
COMMENT ON COLUMN hub.batteries.title IS 'The metadata''s name as given, from which name was made.';
COMMENT ON COLUMN hub.batteries.epoch IS 'Life of the name; (epoch, seq) orders the rows everywhere.';
COMMENT ON COLUMN hub.batteries.last_seq IS 'seq of the newest stored row; rows are numbered 1, 2, 3 … without gaps.';
COMMENT ON COLUMN hub.batteries.relayed_seq IS 'Rows up to this seq are on the bus: a hint, moved after the bus acknowledged.';
COMMENT ON COLUMN hub.batteries.segment IS 'Segment (test) of the newest row.';
COMMENT ON COLUMN hub.batteries.latest_test_time IS 'Largest test_time within the segment, in seconds.';
COMMENT ON COLUMN hub.batteries.form IS 'Raised by every change of the table''s columns; 0 while there is no table.';

CREATE TABLE hub.metadata (
    battery_id bigint PRIMARY KEY REFERENCES hub.batteries ON DELETE CASCADE,
    body json NOT NULL,
    changed timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE hub.metadata IS 'Metadata of batteries, kept as sent.';

CREATE TABLE hub.sessions (
    id uuid PRIMARY KEY,
    battery_id bigint NOT NULL REFERENCES hub.batteries ON DELETE CASCADE,
    attempt bigint NOT NULL DEFAULT 0,
    position bigint NOT NULL DEFAULT 0,
    used timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
COMMENT ON TABLE hub.sessions IS 'Upload sessions, which make sending again harmless.';
COMMENT ON COLUMN hub.sessions.attempt IS 'Raised by each connection; only the newest may store rows.';
COMMENT ON COLUMN hub.sessions.position IS 'All rows below this place in the session are stored or in hub.rejected_rows.';
COMMENT ON COLUMN hub.sessions.used IS 'Last connection or stored row; a session ends after 7 unused days.';

CREATE TABLE hub.rejected_rows (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    battery_id bigint NOT NULL REFERENCES hub.batteries ON DELETE CASCADE,
    epoch bigint NOT NULL,
    session uuid,
    position bigint,
    received timestamptz NOT NULL,
    reason text NOT NULL,
    body json NOT NULL
);
CREATE INDEX rejected_rows_of_battery ON hub.rejected_rows (battery_id, id);
COMMENT ON TABLE hub.rejected_rows IS 'Rows that fit no rule, with the reason; nothing is lost silently.';
COMMENT ON COLUMN hub.rejected_rows.position IS 'Place in the session, or in the upload where there is no session.';
COMMENT ON COLUMN hub.rejected_rows.body IS 'The row as it was sent.';

CREATE TABLE hub.table_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    battery_id bigint NOT NULL REFERENCES hub.batteries ON DELETE CASCADE,
    epoch bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    after_seq bigint NOT NULL,
    change text NOT NULL
);
COMMENT ON TABLE hub.table_changes IS 'Journal of every change of a battery''s table.';
COMMENT ON COLUMN hub.table_changes.after_seq IS 'The newest row when the table was changed.';

CREATE SEQUENCE hub.revisions;
COMMENT ON SEQUENCE hub.revisions IS 'Revisions of registrations, never used again.';

CREATE TABLE hub.estimators (
    battery_id bigint NOT NULL REFERENCES hub.batteries ON DELETE CASCADE,
    name text NOT NULL,
    revision bigint NOT NULL DEFAULT nextval('hub.revisions'),
    definition text NOT NULL,
    valid_from double precision NOT NULL DEFAULT 0,
    deleted boolean NOT NULL DEFAULT false,
    changed timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (battery_id, name)
);
COMMENT ON TABLE hub.estimators IS 'Registered estimators; removed ones stay as tombstones. The bucket rovi_estimators is made from this.';
COMMENT ON COLUMN hub.estimators.valid_from IS 'Rows with test_time below this, in seconds, are not used.';

CREATE TABLE hub.bus (
    "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
    epoch uuid NOT NULL
);
COMMENT ON TABLE hub.bus IS 'The bus epoch that the rows stream should carry; another one there means that the bus was wiped.';
