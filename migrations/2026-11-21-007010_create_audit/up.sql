CREATE TABLE hub.audit (
    id bigint PRIMARY KEY,
    previous text NOT NULL,
    digest text NOT NULL,
    at bigint NOT NULL,
    service text NOT NULL,
    who text NOT NULL,
    source text NOT NULL,
    action text NOT NULL,
    path text NOT NULL,
    subject text NOT NULL,
    status integer NOT NULL
);
COMMENT ON TABLE hub.audit IS 'Who did what, where callers are asked who they are: a line for each call that may change something, uploads of rows aside.';
COMMENT ON COLUMN hub.audit.id IS 'From 1 without gaps.';
COMMENT ON COLUMN hub.audit.previous IS 'The digest of the line before.';
COMMENT ON COLUMN hub.audit.digest IS 'SHA-256 of this line with previous, so that a change of the past shows.';
COMMENT ON COLUMN hub.audit.at IS 'When it was answered, microseconds since 1970.';
COMMENT ON COLUMN hub.audit.source IS 'The address that the call came from, as the service saw it.';
COMMENT ON COLUMN hub.audit.action IS 'Method and route.';
COMMENT ON COLUMN hub.audit.subject IS 'Batteries, estimators and their revisions, tokens: what it was done to.';
COMMENT ON COLUMN hub.audit.status IS 'The HTTP status of the answer.';
