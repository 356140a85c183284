-- Rows of a battery are for the role of its tenant, where there is one: rovi_tenant_<tenant>.
-- Roles belong to the whole server and are made by deploy/postgres/roles.sql, or not at all.

CREATE FUNCTION hub.tenant(battery text, given text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(given, substring(battery FROM '^([A-Za-z0-9_]{1,31})-'))
$$;
COMMENT ON FUNCTION hub.tenant IS 'The tenant that a battery was given to, else that after which it is called.';

CREATE FUNCTION hub.share_table(schema_name text, table_name text, battery_name text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    reader text;
    other text;
BEGIN
    SELECT 'rovi_tenant_' || hub.tenant(battery_name, (
        SELECT tenant FROM hub.placements WHERE battery = battery_name)) INTO reader;
    FOR other IN
        SELECT role.rolname FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) acl
        JOIN pg_roles role ON role.oid = acl.grantee
        WHERE n.nspname = schema_name AND c.relname = table_name
          AND starts_with(role.rolname, 'rovi_tenant_') AND role.rolname IS DISTINCT FROM reader
    LOOP
        EXECUTE format('REVOKE ALL ON %I.%I FROM %I', schema_name, table_name, other);
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = reader) THEN
        EXECUTE format('GRANT SELECT ON %I.%I TO %I', schema_name, table_name, reader);
    END IF;
END
$$;
COMMENT ON FUNCTION hub.share_table IS 'Lets the role of a battery''s tenant read a table of it, and that of no other tenant.';

CREATE FUNCTION hub.share_battery(battery_name text) RETURNS void LANGUAGE sql AS $$
    SELECT hub.share_table(n.nspname, c.relname, battery_name)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND (
        n.nspname IN ('battery', 'estimates') AND c.relname = battery_name
        OR n.nspname = 'tables' AND c.relname IN (
            SELECT t.sql_name FROM hub.tables t JOIN hub.batteries b ON b.id = t.battery_id
            WHERE b.name = battery_name))
$$;
COMMENT ON FUNCTION hub.share_battery IS 'hub.share_table for all tables of a battery.';

CREATE FUNCTION hub.add_tenant(tenant text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    reader text := 'rovi_tenant_' || tenant;
BEGIN
    IF tenant !~ '^[A-Za-z0-9_]{1,31}$' THEN
        RAISE EXCEPTION '% is no name of a tenant', tenant;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = reader) THEN
        EXECUTE format('CREATE ROLE %I', reader);
    END IF;
    EXECUTE format('GRANT rovi_analyst TO %I', reader);
    PERFORM hub.share_battery(name) FROM hub.batteries;
    RETURN reader;
END
$$;
COMMENT ON FUNCTION hub.add_tenant IS 'For a superuser: makes the role of a tenant''s analysts, to be granted to people, and returns its name.';

CREATE FUNCTION hub.share_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM hub.share_battery(coalesce(NEW.battery, OLD.battery));
    RETURN NULL;
END
$$;
CREATE TRIGGER share_moved AFTER INSERT OR UPDATE OR DELETE ON hub.placements
    FOR EACH ROW EXECUTE FUNCTION hub.share_moved();

CREATE SCHEMA analyst;
COMMENT ON SCHEMA analyst IS 'What of the hub''s own tables a tenant may read: the lines of its batteries.';

CREATE VIEW analyst.batteries WITH (security_barrier) AS
    SELECT b.name, b.title, b.epoch, b.first_seq, b.last_seq, b.segment, b.latest_test_time, b.created,
           hub.tenant(b.name, p.tenant) AS tenant
    FROM hub.batteries b LEFT JOIN hub.placements p ON p.battery = b.name
    WHERE EXISTS (
        SELECT FROM pg_roles r
        WHERE r.rolname = 'rovi_tenant_' || hub.tenant(b.name, p.tenant)
          AND pg_has_role(r.oid, 'USAGE'));
COMMENT ON VIEW analyst.batteries IS 'Batteries of the tenants whose roles one has; columns as in hub.batteries.';

CREATE VIEW analyst.cycles WITH (security_barrier) AS
    SELECT c.* FROM hub.cycles c JOIN analyst.batteries b ON b.name = c.battery;
COMMENT ON VIEW analyst.cycles IS 'Their cycles, as in hub.cycles.';

CREATE VIEW analyst.metadata WITH (security_barrier) AS
    SELECT a.name AS battery, m.body, m.changed
    FROM hub.metadata m JOIN hub.batteries b ON b.id = m.battery_id
    JOIN analyst.batteries a ON a.name = b.name;
COMMENT ON VIEW analyst.metadata IS 'Their metadata, as sent.';

CREATE VIEW analyst.intervals WITH (security_barrier) AS
    SELECT a.name AS battery, i.label, i.first_seq, i.last_seq, i.segment, i.first_test_time,
           i.last_test_time, i.note
    FROM hub.intervals i JOIN hub.batteries b ON b.id = i.battery_id
    JOIN analyst.batteries a ON a.name = b.name;
COMMENT ON VIEW analyst.intervals IS 'Named parts of their histories, as in hub.intervals.';
