DROP TABLE hub.estimator_files;
ALTER TABLE hub.estimators DROP COLUMN required_time;
