-- Version 3: nothing in the schema finds a function or an operator by its name alone, and views that cannot be written say so.

-- Versions before this one were installed with the search path of whoever did it, who may have been given other operators
-- than PostgreSQL's. What reads them is resolved anew, in pg_catalog.
CREATE OR REPLACE VIEW interrex.cluster_config AS
SELECT CASE WHEN pg_is_in_recovery() THEN 'secondary' ELSE state.main_role END AS server_role,
       state.main_host AS main_server_ip,
       coalesce((SELECT auto_failover_enabled FROM interrex.settings_requests WHERE auto_failover_enabled IS NOT NULL
                 ORDER BY requested_at DESC, id DESC LIMIT 1), state.auto_failover_enabled) AS auto_failover_enabled,
       trim_scale(coalesce((SELECT auto_failover_threshold_ms FROM interrex.settings_requests
                            WHERE auto_failover_threshold_ms IS NOT NULL ORDER BY requested_at DESC, id DESC LIMIT 1),
                           state.auto_failover_threshold_ms) / 1000.0) AS auto_failover_threshold_seconds,
       state.main_node_id,
       state.main_postgres_address,
       state.epoch
FROM interrex.cluster_state AS state;

ALTER FUNCTION interrex.refuse_change() SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION interrex.request_settings() SET search_path = pg_catalog, pg_temp;

-- Without these, a DELETE would empty what is behind the view, and an INSERT could fill it with anything.
CREATE FUNCTION interrex.refuse_other_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'cluster_config: % is not possible, it has one row for good', TG_OP
        USING ERRCODE = 'feature_not_supported',
            HINT = 'To switch automatic failover off: UPDATE cluster_config SET auto_failover_enabled = false';
END $$;
CREATE TRIGGER refuse_other_change INSTEAD OF INSERT OR DELETE ON interrex.cluster_config
    FOR EACH ROW EXECUTE FUNCTION interrex.refuse_other_change();
