ALTER TABLE hub.batteries
    ADD COLUMN holder uuid,
    ADD COLUMN holder_attempt bigint NOT NULL DEFAULT 0,
    ADD COLUMN holder_offset bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN hub.batteries.holder IS 'The session that wrote last and alone: while it holds the line, its position is last_seq + holder_offset, and hub.sessions.noted_position stays behind.';
COMMENT ON COLUMN hub.batteries.holder_attempt IS 'The connection of that session.';
COMMENT ON COLUMN hub.batteries.holder_offset IS 'What last_seq lacks of the session''s position. Whoever changes last_seq by hand changes that, too.';
-- A session's name lets its rows be taken over: dashboards (deploy/grafana/reader.sql) are not shown it.
DO $$ BEGIN
    IF has_table_privilege('grafana', 'hub.batteries', 'SELECT') THEN
        REVOKE SELECT ON hub.batteries FROM grafana;
        GRANT SELECT (id, name, title, epoch, first_seq, last_seq, relayed_seq, segment,
            latest_test_time, form, created, retention, corrections, deleted_rows)
            ON hub.batteries TO grafana;
    END IF;
EXCEPTION WHEN undefined_object THEN NULL;
END $$;

-- A hub of an older version would take what is noted for the position, and store rows twice. It finds
-- no column of that name any more, and stores nothing.
ALTER TABLE hub.sessions RENAME COLUMN position TO noted_position;
COMMENT ON COLUMN hub.sessions.noted_position IS 'All rows below this place in the session are stored or in hub.rejected_rows; while the session holds its battery''s line (hub.batteries.holder), so are rows beyond it.';
COMMENT ON COLUMN hub.sessions.used IS 'Last connection, or last stored row before the session held its battery''s line; a session that does not hold it ends when that is longer ago than the setting sessions.days (7).';
