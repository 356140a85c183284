ALTER TABLE hub.sessions DROP COLUMN body;
