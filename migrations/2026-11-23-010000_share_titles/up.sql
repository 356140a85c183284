-- Two tenants may call a battery alike: a title that one of them has refused tells the other of it.
ALTER TABLE hub.batteries DROP CONSTRAINT batteries_title_key;
CREATE INDEX batteries_title ON hub.batteries (title);
COMMENT ON COLUMN hub.batteries.title IS 'The metadata''s name as given, from which name was made. Unique among the batteries that one caller may see.';
