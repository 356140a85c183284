DELETE FROM hub.rollups WHERE level = 2;
COMMENT ON TABLE hub.rollups IS 'Smallest and largest values of blocks of rows, made from the tables of batteries whose history is reduced. May be emptied at any time.';
COMMENT ON COLUMN hub.rollups.level IS '0: blocks of 256 rows, 1: blocks of 4096.';
