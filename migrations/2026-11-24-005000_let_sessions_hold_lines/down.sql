UPDATE hub.sessions session SET noted_position = line.last_seq + line.holder_offset, used = now()
FROM hub.batteries line WHERE session.id = line.holder;
ALTER TABLE hub.sessions RENAME COLUMN noted_position TO position;
COMMENT ON COLUMN hub.sessions.position IS 'All rows below this place in the session are stored or in hub.rejected_rows.';
COMMENT ON COLUMN hub.sessions.used IS 'Last connection or stored row; a session ends when that is longer ago than the setting sessions.days (7).';
ALTER TABLE hub.batteries
    DROP COLUMN holder,
    DROP COLUMN holder_attempt,
    DROP COLUMN holder_offset;
