COMMENT ON TABLE hub.sessions IS 'Upload sessions, which make sending again harmless.';
COMMENT ON COLUMN hub.sessions.used IS 'Last connection or stored row; a session ends after 7 unused days.';
