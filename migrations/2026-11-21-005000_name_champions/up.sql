ALTER TABLE hub.estimators
    ADD COLUMN version bigint NOT NULL DEFAULT nextval('hub.revisions'),
    ADD COLUMN paused boolean NOT NULL DEFAULT false,
    ADD COLUMN change text NOT NULL DEFAULT 'registered';
UPDATE hub.estimators SET change = 'removed' WHERE deleted;
COMMENT ON COLUMN hub.estimators.version IS 'Raised by every change, also by those under which the estimator runs on.';
COMMENT ON COLUMN hub.estimators.paused IS 'Whether it takes no rows until it is resumed.';
COMMENT ON COLUMN hub.estimators.change IS 'The last change: registered, replaced, removed, promoted, paused, resumed or reset.';

CREATE TABLE hub.champions (
    battery_id bigint NOT NULL REFERENCES hub.batteries ON DELETE CASCADE,
    epoch bigint NOT NULL,
    from_seq bigint NOT NULL,
    estimator text,
    era bigint NOT NULL DEFAULT nextval('hub.revisions'),
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (battery_id, epoch, from_seq)
);
INSERT INTO hub.champions (battery_id, epoch, from_seq, estimator)
    SELECT known.battery_id, battery.epoch, 1, known.name
    FROM hub.estimators known JOIN hub.batteries battery ON battery.id = known.battery_id
    WHERE known.name = 'default' AND NOT known.deleted;
COMMENT ON TABLE hub.champions IS 'Which estimator''s numbers count, from which row on, until the next line of the battery: exactly one for each row.';
COMMENT ON COLUMN hub.champions.epoch IS 'Epoch of the first row that it is champion for.';
COMMENT ON COLUMN hub.champions.from_seq IS 'seq of the first row that it is champion for.';
COMMENT ON COLUMN hub.champions.estimator IS 'Name of the estimator; null where none was registered that could be it.';
COMMENT ON COLUMN hub.champions.era IS 'Raised by every change of any champion.';

CREATE FUNCTION hub.champion_of(battery text, epoch bigint, seq bigint) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (
        SELECT line.estimator
        FROM hub.champions line JOIN hub.batteries known ON known.id = line.battery_id
        WHERE known.name = champion_of.battery
            AND (line.epoch, line.from_seq) <= (champion_of.epoch, champion_of.seq)
        ORDER BY line.epoch DESC, line.from_seq DESC
        LIMIT 1
    );
COMMENT ON FUNCTION hub.champion_of IS 'Names the estimator that is champion for a row.';
