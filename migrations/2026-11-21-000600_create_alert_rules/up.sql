CREATE TABLE hub.alert_rules (
    name text PRIMARY KEY,
    revision bigint NOT NULL DEFAULT nextval('hub.revisions'),
    definition json,
    changed timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE hub.alert_rules IS 'Rules of alerts; removed ones stay as tombstones. The bucket rovi_alert_rules is made from this.';
COMMENT ON COLUMN hub.alert_rules.revision IS 'Raised by every change and never used again.';
COMMENT ON COLUMN hub.alert_rules.definition IS 'What the rule says; null where it was removed.';
