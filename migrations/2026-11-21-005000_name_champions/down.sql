DROP FUNCTION hub.champion_of;
DROP TABLE hub.champions;
ALTER TABLE hub.estimators DROP COLUMN version, DROP COLUMN paused, DROP COLUMN change;
