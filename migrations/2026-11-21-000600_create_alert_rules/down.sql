DROP TABLE hub.alert_rules;
