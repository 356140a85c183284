-- Roles of the database, for psql as a superuser in the hub's database; safe to run again.
--   rovi_migrate  owns the hub's own tables and changes them: `datahub migrate`
--   rovi_hub      what the running hub is: it owns the tables of batteries, which it makes
--   rovi_analyst  what roles of tenants have in common; it reads no rows by itself
-- Then `datahub migrate` as rovi_migrate makes or updates the tables and gives the rights, and
--   SELECT hub.add_tenant('acme'); GRANT rovi_tenant_acme TO alice;
-- lets alice read the rows of the tenant acme.
DO $$
DECLARE
    role text;
    one record;
BEGIN
    FOREACH role IN ARRAY ARRAY['rovi_migrate LOGIN', 'rovi_hub LOGIN', 'rovi_analyst'] LOOP
        BEGIN
            EXECUTE 'CREATE ROLE ' || role;
        EXCEPTION WHEN duplicate_object THEN NULL;
        END;
    END LOOP;
    EXECUTE format('GRANT CONNECT, CREATE, TEMPORARY ON DATABASE %I TO rovi_migrate', current_database());
    GRANT USAGE, CREATE ON SCHEMA public TO rovi_migrate;
    -- Messages in English, by which a full disk is told from a bad row.
    IF current_setting('server_version_num')::int >= 150000 THEN
        EXECUTE 'GRANT SET ON PARAMETER lc_messages TO rovi_hub';
    END IF;
    -- What was made before there were roles.
    FOR one IN SELECT nspname FROM pg_namespace
        WHERE nspname IN ('hub', 'battery', 'estimates', 'tables', 'analyst') LOOP
        EXECUTE format('ALTER SCHEMA %I OWNER TO rovi_migrate', one.nspname);
    END LOOP;
    FOR one IN
        SELECT n.nspname, c.relname, c.relkind,
               CASE WHEN n.nspname IN ('hub', 'analyst', 'public')
                    THEN 'rovi_migrate' ELSE 'rovi_hub' END AS owner
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'v', 'S')
          AND (n.nspname IN ('hub', 'battery', 'estimates', 'tables', 'analyst')
               OR (n.nspname, c.relname) = ('public', '__diesel_schema_migrations'))
          -- Sequences of columns follow their tables.
          AND NOT EXISTS (SELECT FROM pg_depend d
                          WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass
                            AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
    LOOP
        EXECUTE format('ALTER %s %I.%I OWNER TO %I',
            CASE one.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
            one.nspname, one.relname, one.owner);
    END LOOP;
    FOR one IN SELECT p.oid::regprocedure AS name FROM pg_proc p
        JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'hub' LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO rovi_migrate', one.name);
    END LOOP;
END $$;
