CREATE TABLE hub.tokens (
    id text PRIMARY KEY,
    name text NOT NULL,
    digest text NOT NULL,
    grants json NOT NULL,
    created timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    expires timestamptz,
    revoked timestamptz,
    revision bigint NOT NULL DEFAULT nextval('hub.revisions')
);
COMMENT ON TABLE hub.tokens IS 'API tokens, revoked ones too. The bucket rovi_access is made from this.';
COMMENT ON COLUMN hub.tokens.id IS 'The part of a token that is no secret.';
COMMENT ON COLUMN hub.tokens.name IS 'What people call it.';
COMMENT ON COLUMN hub.tokens.digest IS 'SHA-256 of the token in hexadecimal digits; the token itself is stored nowhere.';
COMMENT ON COLUMN hub.tokens.grants IS 'A list of grants such as reader, engineer:tenant=acme, reader:tag=lab, uploader:battery=b7.';
COMMENT ON COLUMN hub.tokens.created_by IS 'Who made it.';
COMMENT ON COLUMN hub.tokens.expires IS 'Until when it counts; for ever if null.';
COMMENT ON COLUMN hub.tokens.revoked IS 'Since when it does not count any more.';
COMMENT ON COLUMN hub.tokens.revision IS 'Raised by every change and never used again.';

CREATE TABLE hub.placements (
    battery text PRIMARY KEY,
    tenant text,
    tags json NOT NULL,
    revision bigint NOT NULL DEFAULT nextval('hub.revisions')
);
COMMENT ON TABLE hub.placements IS 'To whom batteries belong and their tags, by name, also before they exist. The bucket rovi_access is made from this.';
COMMENT ON COLUMN hub.placements.tenant IS 'The tenant; if null, that after which the battery is called: acme-… belongs to acme.';
COMMENT ON COLUMN hub.placements.tags IS 'Tags, for which roles can be granted.';
COMMENT ON COLUMN hub.placements.revision IS 'Raised by every change and never used again.';
