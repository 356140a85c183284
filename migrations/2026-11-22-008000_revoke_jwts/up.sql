CREATE TABLE hub.revocations (
    id text PRIMARY KEY,
    jti text,
    subject text,
    issued_before timestamptz,
    created timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    revision bigint NOT NULL DEFAULT nextval('hub.revisions'),
    CHECK (num_nonnulls(jti, subject) = 1 AND (subject IS NULL) = (issued_before IS NULL))
);
COMMENT ON TABLE hub.revocations IS 'JWTs of an outside issuer that do not count any more. The bucket rovi_access is made from this.';
COMMENT ON COLUMN hub.revocations.id IS 'The key: made of jti or subject.';
COMMENT ON COLUMN hub.revocations.jti IS 'The name of the one JWT that was revoked.';
COMMENT ON COLUMN hub.revocations.subject IS 'Whose JWTs were revoked, where it is not one.';
COMMENT ON COLUMN hub.revocations.issued_before IS 'Those that the subject was given before.';
COMMENT ON COLUMN hub.revocations.created IS 'When they were revoked first.';
COMMENT ON COLUMN hub.revocations.created_by IS 'Who revoked them first.';
COMMENT ON COLUMN hub.revocations.revision IS 'Raised by every change and never used again.';
