DROP TABLE hub.audit;
