-- The role by which Grafana reads, for psql as the owner of the tables; safe to run again.
-- It reads rows, estimates and what describes them; no tokens, no audit, no bodies and no sessions
-- of uploads.
DO $$ BEGIN
    CREATE ROLE grafana LOGIN;
EXCEPTION WHEN duplicate_object THEN NULL;
END $$;
ALTER ROLE grafana SET default_transaction_read_only = on;
-- A question that reads too much ends; uploads go first.
ALTER ROLE grafana SET statement_timeout = '30s';
GRANT USAGE ON SCHEMA hub, battery, estimates TO grafana;
GRANT SELECT ON hub.champions, hub.cycles TO grafana;
-- All but which session holds the line.
REVOKE SELECT ON hub.batteries FROM grafana;
GRANT SELECT (id, name, title, epoch, first_seq, last_seq, relayed_seq, segment, latest_test_time,
    form, created, retention, corrections, deleted_rows) ON hub.batteries TO grafana;
GRANT SELECT ON ALL TABLES IN SCHEMA battery, estimates TO grafana;
-- Tables of batteries that come later.
ALTER DEFAULT PRIVILEGES IN SCHEMA battery, estimates GRANT SELECT ON TABLES TO grafana;
-- Where the hub has a role of its own, that makes them.
DO $$ BEGIN
    ALTER DEFAULT PRIVILEGES FOR ROLE rovi_hub IN SCHEMA battery, estimates
        GRANT SELECT ON TABLES TO grafana;
EXCEPTION WHEN undefined_object THEN NULL;
END $$;
