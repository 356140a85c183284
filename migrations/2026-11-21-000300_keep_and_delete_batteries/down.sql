DROP TRIGGER begin_epoch ON hub.batteries;
DROP FUNCTION hub.begin_epoch;
DROP TABLE hub.deleted_batteries;
DROP FUNCTION hub.field;
DROP TABLE hub.metadata_revisions;
ALTER TABLE hub.metadata DROP COLUMN revision, DROP COLUMN fields;
ALTER TABLE hub.batteries DROP COLUMN first_seq, DROP COLUMN retention;
