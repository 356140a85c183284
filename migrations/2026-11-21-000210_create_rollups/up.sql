CREATE TABLE hub.rollups (
    battery_id bigint NOT NULL REFERENCES hub.batteries ON DELETE CASCADE,
    epoch bigint NOT NULL,
    column_name text COLLATE "C" NOT NULL,
    level smallint NOT NULL,
    block bigint NOT NULL,
    "values" bigint NOT NULL,
    least double precision,
    least_seq bigint,
    greatest double precision,
    greatest_seq bigint,
    PRIMARY KEY (battery_id, epoch, column_name, level, block)
);
CREATE INDEX rollups_of_blocks ON hub.rollups (battery_id, level, block);
COMMENT ON TABLE hub.rollups IS 'Smallest and largest values of blocks of rows, made from the tables of batteries whose history is reduced. May be emptied at any time.';
COMMENT ON COLUMN hub.rollups.column_name IS 'A numeric column, or received in s since 1970, which every block has.';
COMMENT ON COLUMN hub.rollups.level IS '0: blocks of 256 rows, 1: blocks of 4096.';
COMMENT ON COLUMN hub.rollups.block IS 'Counted from 0: (seq - 1) / rows of a block.';
COMMENT ON COLUMN hub.rollups."values" IS 'Values in the block that are neither null nor NaN.';
COMMENT ON COLUMN hub.rollups.least_seq IS 'seq of the first row with the smallest value.';
COMMENT ON COLUMN hub.rollups.greatest_seq IS 'seq of the first row with the largest value.';
