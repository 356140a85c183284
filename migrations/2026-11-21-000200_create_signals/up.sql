CREATE TABLE hub.signals (
    battery_id bigint NOT NULL REFERENCES hub.batteries ON DELETE CASCADE,
    name text NOT NULL,
    expression text NOT NULL,
    unit text,
    changed timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (battery_id, name)
);
COMMENT ON TABLE hub.signals IS 'Derived signals: columns of history that are computed when they are read.';
COMMENT ON COLUMN hub.signals.name IS 'Asked for as a column; a column of the table with this name wins.';
COMMENT ON COLUMN hub.signals.expression IS 'Formula over columns of the battery''s table, such as voltage * current.';
COMMENT ON COLUMN hub.signals.unit IS 'Unit of the result, as it is to be shown.';
