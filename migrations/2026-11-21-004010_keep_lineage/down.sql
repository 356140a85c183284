DROP TRIGGER keep_file ON hub.estimator_files;
DROP TRIGGER keep_revision ON hub.estimators;
DROP FUNCTION hub.keep_file(), hub.keep_revision();
DROP TABLE hub.estimator_revision_files, hub.kept_files, hub.estimator_revisions, hub.lineage;
