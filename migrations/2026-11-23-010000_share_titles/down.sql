COMMENT ON COLUMN hub.batteries.title IS 'The metadata''s name as given, from which name was made.';
DROP INDEX hub.batteries_title;
ALTER TABLE hub.batteries ADD CONSTRAINT batteries_title_key UNIQUE (title);
