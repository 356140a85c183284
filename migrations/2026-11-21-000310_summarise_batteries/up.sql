CREATE TABLE hub.cycles (
    battery text NOT NULL REFERENCES hub.batteries (name) ON DELETE CASCADE,
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    segment integer NOT NULL,
    cycle_number bigint,
    "rows" bigint NOT NULL,
    is_complete boolean NOT NULL,
    is_stale boolean NOT NULL DEFAULT false,
    cycle_start double precision,
    cycle_duration double precision,
    capacity_discharge double precision,
    energy_discharge double precision,
    capacity_charge double precision,
    energy_charge double precision,
    "V_maximum" double precision,
    "V_minimum" double precision,
    temperature_minimum double precision,
    temperature_maximum double precision,
    PRIMARY KEY (battery, first_seq)
) WITH (fillfactor = 80);
CREATE INDEX cycles_of_segment ON hub.cycles (battery, segment, cycle_number);
CREATE INDEX stale_cycles ON hub.cycles (battery) WHERE is_stale;
COMMENT ON TABLE hub.cycles IS 'A line a cycle, as battery-data-toolkit''s cycle_stats; kept up to date as rows come.';
COMMENT ON COLUMN hub.cycles.first_seq IS 'The cycle''s first row in the battery''s table.';
COMMENT ON COLUMN hub.cycles.last_seq IS 'The cycle''s newest row in the battery''s table.';
COMMENT ON COLUMN hub.cycles.cycle_number IS 'As in the rows; null where they have none: then a segment is one cycle.';
COMMENT ON COLUMN hub.cycles."rows" IS 'Rows that have the time, current and voltage which the integrals need.';
COMMENT ON COLUMN hub.cycles.is_complete IS 'Whether the next cycle of the segment began.';
COMMENT ON COLUMN hub.cycles.is_stale IS 'Rows came late or were corrected: it is about to be computed anew.';
COMMENT ON COLUMN hub.cycles.cycle_start IS 'test_time of the first row, s.';
COMMENT ON COLUMN hub.cycles.cycle_duration IS 'Up to the begin of the next cycle if its number follows, else to the last row, s.';
COMMENT ON COLUMN hub.cycles.capacity_discharge IS 'A·h.';
COMMENT ON COLUMN hub.cycles.energy_discharge IS 'W·h.';
COMMENT ON COLUMN hub.cycles.capacity_charge IS 'A·h.';
COMMENT ON COLUMN hub.cycles.energy_charge IS 'W·h.';
COMMENT ON COLUMN hub.cycles."V_maximum" IS 'V.';
COMMENT ON COLUMN hub.cycles."V_minimum" IS 'V.';
COMMENT ON COLUMN hub.cycles.temperature_minimum IS '°C.';
COMMENT ON COLUMN hub.cycles.temperature_maximum IS '°C.';

CREATE TABLE hub.cycle_cursors (
    battery_id bigint PRIMARY KEY REFERENCES hub.batteries ON DELETE CASCADE,
    seq bigint NOT NULL DEFAULT 0,
    state bytea
) WITH (fillfactor = 50);
COMMENT ON TABLE hub.cycle_cursors IS 'How far the cycles of each battery are computed.';
COMMENT ON COLUMN hub.cycle_cursors.seq IS 'Rows up to this are in hub.cycles.';
COMMENT ON COLUMN hub.cycle_cursors.state IS 'The integrals of the cycle that is going on, to the last bit.';

CREATE TABLE hub.intervals (
    battery_id bigint NOT NULL REFERENCES hub.batteries ON DELETE CASCADE,
    label text NOT NULL,
    first_seq bigint,
    last_seq bigint,
    segment integer,
    first_test_time double precision,
    last_test_time double precision,
    note text,
    changed timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (battery_id, label)
);
COMMENT ON TABLE hub.intervals IS 'Named parts of batteries'' histories; bounds are inclusive.';
COMMENT ON COLUMN hub.intervals.first_seq IS 'First row; null where the interval is given by test_time.';
COMMENT ON COLUMN hub.intervals.last_seq IS 'Last row; null where the interval is given by test_time.';
COMMENT ON COLUMN hub.intervals.segment IS 'The test that first_test_time and last_test_time, in s, are of.';
COMMENT ON COLUMN hub.intervals.note IS 'Free text.';

CREATE SCHEMA tables;
COMMENT ON SCHEMA tables IS 'Other tables of batteries'' files, such as "<battery>/cycle_stats"; hub.tables lists them.';
CREATE TABLE hub.tables (
    battery_id bigint NOT NULL REFERENCES hub.batteries ON DELETE CASCADE,
    name text NOT NULL,
    sql_name text NOT NULL UNIQUE,
    "rows" bigint NOT NULL,
    changed timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (battery_id, name)
);
COMMENT ON TABLE hub.tables IS 'The tables of schema tables, and whose they are.';
COMMENT ON COLUMN hub.tables.sql_name IS 'The table''s name in schema tables.';
