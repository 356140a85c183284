COMMENT ON TABLE hub.sessions IS 'Upload sessions, which make sending again harmless. The hub forgets those that are of no use any more.';
COMMENT ON COLUMN hub.sessions.used IS 'Last connection or stored row; a session ends when that is longer ago than the setting sessions.days (7).';
