ALTER TABLE hub.sessions ADD COLUMN body bytea;
COMMENT ON COLUMN hub.sessions.body IS 'SHA-256 of the one body that the session is for (Idempotency-Key); empty for sockets.';
