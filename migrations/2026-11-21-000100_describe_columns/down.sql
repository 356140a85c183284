DROP TABLE hub.columns;
