DROP TABLE hub.revocations;
