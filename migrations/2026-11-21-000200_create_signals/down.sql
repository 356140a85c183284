DROP TABLE hub.signals;
