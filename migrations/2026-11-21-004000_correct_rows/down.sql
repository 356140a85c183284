DROP TABLE hub.corrected_rows, hub.corrections;
DROP INDEX hub.corrected_batteries;
ALTER TABLE hub.batteries DROP COLUMN corrections, DROP COLUMN deleted_rows;
