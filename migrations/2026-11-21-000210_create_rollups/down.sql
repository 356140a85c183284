DROP TABLE hub.rollups;
