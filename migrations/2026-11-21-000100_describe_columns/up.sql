CREATE TABLE hub.columns (
    battery_id bigint NOT NULL REFERENCES hub.batteries ON DELETE CASCADE,
    name text NOT NULL,
    unit text,
    description text,
    PRIMARY KEY (battery_id, name)
);
COMMENT ON TABLE hub.columns IS 'Units and descriptions of columns as people gave them; what is missing here is what battdat says. A line may stand here before its column exists.';
COMMENT ON COLUMN hub.columns.name IS 'The column''s name in the battery''s table.';
COMMENT ON COLUMN hub.columns.unit IS 'The unit as written, such as V or A-hr.';
