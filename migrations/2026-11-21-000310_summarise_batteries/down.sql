DROP TABLE hub.tables;
DROP SCHEMA tables CASCADE;
DROP TABLE hub.intervals;
DROP TABLE hub.cycle_cursors;
DROP TABLE hub.cycles;
