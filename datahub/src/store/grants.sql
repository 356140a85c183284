-- What the roles of deploy/postgres/roles.sql may do, where there are such roles.
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'rovi_hub') THEN
        GRANT SELECT ON public.__diesel_schema_migrations TO rovi_hub;
        GRANT USAGE ON SCHEMA hub TO rovi_hub;
        GRANT USAGE, CREATE ON SCHEMA battery, estimates, tables TO rovi_hub;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA hub TO rovi_hub;
        GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA hub TO rovi_hub;
        -- Who did what is only added to.
        REVOKE UPDATE, DELETE ON hub.audit FROM rovi_hub;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'rovi_analyst') THEN
        GRANT USAGE ON SCHEMA battery, estimates, tables, analyst TO rovi_analyst;
        GRANT SELECT ON ALL TABLES IN SCHEMA analyst TO rovi_analyst;
        -- The views ask it for the tenant.
        GRANT EXECUTE ON FUNCTION hub.tenant TO rovi_analyst;
        GRANT USAGE ON SCHEMA hub TO rovi_analyst;
    END IF;
END $$;
