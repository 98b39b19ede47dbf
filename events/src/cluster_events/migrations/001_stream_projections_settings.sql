-- Version 1 of the schema `interrex`. Forward only: a later version is a file of its own, and adds to it.

CREATE TABLE interrex.schema_version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version  integer NOT NULL
);
INSERT INTO interrex.schema_version (version) VALUES (1);

-- The write that proves a primary.
CREATE TABLE interrex.write_probe (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch      bigint NOT NULL,
    written_at timestamptz NOT NULL
);

-- ---- the stream ---------------------------------------------------------------------------------------------

-- The merged stream. `pos` is gapless: only one writer at a time assigns it.
CREATE TABLE interrex.cluster_events (
    pos            bigint PRIMARY KEY,
    event_id       uuid NOT NULL,
    cluster_id     uuid NOT NULL,
    node_id        integer NOT NULL,
    node_seq       bigint NOT NULL,
    epoch          bigint NOT NULL,
    hlc            bigint NOT NULL,
    recorded_at    timestamptz NOT NULL,
    kind           text NOT NULL,
    schema_version integer NOT NULL,
    run_id         uuid,
    correlation_id uuid NOT NULL,
    causation_id   uuid,
    actor          json NOT NULL,
    payload        json NOT NULL,
    prev_hash      bytea NOT NULL,
    hash           bytea NOT NULL,
    position_epoch bigint NOT NULL,
    learned_in     bigint NOT NULL,
    UNIQUE (node_id, node_seq)
);
CREATE INDEX cluster_events_story ON interrex.cluster_events (hlc, node_id, node_seq);
CREATE INDEX cluster_events_run ON interrex.cluster_events (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX cluster_events_kind ON interrex.cluster_events (kind, pos);

COMMENT ON TABLE interrex.cluster_events IS
    'What happened: the merged journals of all nodes. Processing order is (position_epoch, pos), story order is (hlc, node_id, node_seq).';
COMMENT ON COLUMN interrex.cluster_events.pos IS 'Place in the stream, without gaps. Together with position_epoch it is a position.';
COMMENT ON COLUMN interrex.cluster_events.position_epoch IS 'Epoch of the main that appended it.';
COMMENT ON COLUMN interrex.cluster_events.epoch IS 'Epoch in which its node recorded it.';
COMMENT ON COLUMN interrex.cluster_events.learned_in IS 'Epoch in which the main that appended it learned of it; later than epoch for an old main''s last words.';

CREATE FUNCTION interrex.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'cluster_events is append-only'
        USING HINT = 'What happened cannot be changed. A correction is an event of its own.';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON interrex.cluster_events
    FOR EACH STATEMENT EXECUTE FUNCTION interrex.refuse_change();

-- The newest position. A writer locks this row first, so that only one appends at a time.
CREATE TABLE interrex.stream_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch    bigint NOT NULL,
    pos      bigint NOT NULL,
    hash     bytea NOT NULL
);
INSERT INTO interrex.stream_head (epoch, pos, hash) VALUES (0, 0, decode(repeat('00', 32), 'hex'));

-- The newest event of each node that is in the stream.
CREATE TABLE interrex.journal_heads (
    node_id  integer PRIMARY KEY,
    node_seq bigint NOT NULL,
    hash     bytea NOT NULL
);

-- ---- projections --------------------------------------------------------------------------------------------

-- Where each projection stands. `state` is live, paused (it could not take in an event) or rebuild (asked for).
CREATE TABLE interrex.projection_checkpoints (
    projection text PRIMARY KEY,
    version    integer NOT NULL,
    generation integer NOT NULL,
    epoch      bigint NOT NULL,
    pos        bigint NOT NULL,
    head_hash  bytea NOT NULL,
    state      text NOT NULL CHECK (state IN ('live', 'paused', 'rebuild')),
    problem    text,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE interrex.projection_checkpoints IS
    'How far each projection is. To have one rebuilt: UPDATE interrex.projection_checkpoints SET state = ''rebuild'' WHERE projection = ...';

-- Who is main, and the settings in force: one row, kept with cluster_nodes.
CREATE TABLE interrex.cluster_state (
    only_row                   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    main_node_id               integer,
    main_role                  text NOT NULL,
    main_host                  text,
    main_postgres_address      text,
    epoch                      bigint NOT NULL,
    timeline                   bigint,
    auto_failover_enabled      boolean,
    auto_failover_threshold_ms bigint,
    least_threshold_ms         bigint,
    settings_changed_by        text
);

-- ---- settings -----------------------------------------------------------------------------------------------

-- What was asked for and main's supervisor has not recorded as an event yet.
CREATE TABLE interrex.settings_requests (
    id                         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    requested_at               timestamptz NOT NULL DEFAULT clock_timestamp(),
    requested_by               text NOT NULL,
    source                     text NOT NULL,
    -- Null is unchanged: two people who change one setting each do not take back each other's change.
    auto_failover_enabled      boolean,
    auto_failover_threshold_ms bigint
);

-- The runbook's table. It reads right on every node: a standby replicates main's rows, and is no main for it.
CREATE VIEW interrex.cluster_config AS
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

CREATE FUNCTION interrex.request_settings() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    least_seconds numeric := trim_scale(coalesce((SELECT least_threshold_ms FROM interrex.cluster_state), 1000) / 1000.0);
BEGIN
    IF (NEW.server_role, NEW.main_server_ip, NEW.main_node_id, NEW.main_postgres_address, NEW.epoch)
        IS DISTINCT FROM (OLD.server_role, OLD.main_server_ip, OLD.main_node_id, OLD.main_postgres_address, OLD.epoch) THEN
        RAISE EXCEPTION 'cluster_config: only auto_failover_enabled and auto_failover_threshold_seconds can be changed here'
            USING ERRCODE = 'feature_not_supported', HINT = 'Who is main changes by a failover, never by an UPDATE.';
    END IF;
    -- only what is changed is judged: a new cluster's settings are not known before main has told them
    IF NEW.auto_failover_enabled IS NULL AND OLD.auto_failover_enabled IS NOT NULL THEN
        RAISE EXCEPTION 'cluster_config: auto_failover_enabled is true or false, not null'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF NEW.auto_failover_threshold_seconds IS DISTINCT FROM OLD.auto_failover_threshold_seconds
        AND (NEW.auto_failover_threshold_seconds IS NULL
             OR NEW.auto_failover_threshold_seconds NOT BETWEEN least_seconds AND 86400) THEN
        RAISE EXCEPTION 'cluster_config: auto_failover_threshold_seconds = % is out of range: it must be from % to 86400',
            coalesce(NEW.auto_failover_threshold_seconds::text, 'null'), least_seconds
            USING ERRCODE = 'numeric_value_out_of_range',
                HINT = 'The least is two probe intervals: one lost packet is no reason to fail over.';
    END IF;
    IF (NEW.auto_failover_enabled, NEW.auto_failover_threshold_seconds)
        IS DISTINCT FROM (OLD.auto_failover_enabled, OLD.auto_failover_threshold_seconds) THEN
        INSERT INTO interrex.settings_requests (requested_by, source, auto_failover_enabled, auto_failover_threshold_ms)
        VALUES (session_user, coalesce(host(inet_client_addr()), 'local socket'), CASE WHEN NEW.auto_failover_enabled IS DISTINCT FROM OLD.auto_failover_enabled THEN NEW.auto_failover_enabled END,
                CASE WHEN NEW.auto_failover_threshold_seconds IS DISTINCT FROM OLD.auto_failover_threshold_seconds
                     THEN round(NEW.auto_failover_threshold_seconds * 1000) END);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER request_settings INSTEAD OF UPDATE ON interrex.cluster_config
    FOR EACH ROW EXECUTE FUNCTION interrex.request_settings();
-- It runs as its owner: no other role may put it upon a table of its own, whose types would then run as the owner too.
REVOKE ALL ON FUNCTION interrex.request_settings() FROM PUBLIC;

-- Without these, a DELETE would empty what is behind the view, and an INSERT could fill it with anything.
CREATE FUNCTION interrex.refuse_other_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'cluster_config: % is not possible, it has one row for good', TG_OP
        USING ERRCODE = 'feature_not_supported',
            HINT = 'To switch automatic failover off: UPDATE cluster_config SET auto_failover_enabled = false';
END $$;
CREATE TRIGGER refuse_other_change INSTEAD OF INSERT OR DELETE ON interrex.cluster_config
    FOR EACH ROW EXECUTE FUNCTION interrex.refuse_other_change();

-- ---- who may look, and under which names --------------------------------------------------------------------

GRANT USAGE ON SCHEMA interrex TO pg_monitor;
GRANT SELECT ON interrex.cluster_events, interrex.cluster_config, interrex.projection_checkpoints TO pg_monitor;

-- The runbook's unqualified names: the schema comes last in the database's search path, so that it hides nothing. A
-- database without one of its own keeps what the configuration file says. Its owner wrote that path, and is no superuser:
-- only what is a list of names is said again, and any other is left alone.
DO $$
DECLARE
    setting text := (
        SELECT split_part(one, '=', 2)
        FROM pg_db_role_setting, unnest(setconfig) AS one
        WHERE setrole = 0 AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND one LIKE 'search\_path=%');
BEGIN
    setting := coalesce(setting,
        (SELECT file.setting FROM pg_file_settings AS file
         WHERE name = 'search_path' AND applied ORDER BY seqno DESC LIMIT 1),
        '"$user", public');
    IF setting !~ '\minterrex\M'
        AND setting ~ '^\s*(("([^"]|"")*"|[[:alpha:]_$][[:alnum:]_$]*)\s*(,\s*("([^"]|"")*"|[[:alpha:]_$][[:alnum:]_$]*)\s*)*)?$' THEN
        -- an empty path is kept as one empty name, which cannot be said again
        EXECUTE format('ALTER DATABASE %I SET search_path = %s', current_database(),
                       concat_ws(', ', nullif(nullif(setting, ''), '""'), 'interrex'));
    END IF;
END $$;
