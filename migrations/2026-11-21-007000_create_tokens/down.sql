DROP TABLE hub.placements;
DROP TABLE hub.tokens;
