-- Version 1 of the schema `interrex`. Forward only: a later version adds to it.

CREATE SCHEMA IF NOT EXISTS interrex;

CREATE TABLE IF NOT EXISTS interrex.schema_version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version  integer NOT NULL
);

-- The write that proves a primary.
CREATE TABLE IF NOT EXISTS interrex.write_probe (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch      bigint NOT NULL,
    written_at timestamptz NOT NULL
);

-- The merged stream. `pos` is gapless: one writer at a time assigns it.
CREATE TABLE IF NOT EXISTS interrex.cluster_events (
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
    prev_hash      text NOT NULL,
    hash           text NOT NULL,
    UNIQUE (node_id, node_seq)
);
CREATE INDEX IF NOT EXISTS cluster_events_story ON interrex.cluster_events (hlc, node_id, node_seq);
CREATE INDEX IF NOT EXISTS cluster_events_run ON interrex.cluster_events (run_id) WHERE run_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS interrex.cluster_nodes (
    node_id          integer PRIMARY KEY,
    name             text NOT NULL,
    role             text NOT NULL,
    status           text NOT NULL,
    address          text NOT NULL,
    postgres_address text NOT NULL,
    redis_address    text,
    epoch            bigint NOT NULL,
    updated_at       timestamptz NOT NULL
);

CREATE TABLE IF NOT EXISTS interrex.cluster_main (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    node_id  integer NOT NULL,
    address  text NOT NULL,
    epoch    bigint NOT NULL
);

-- The runbook's table reads right on every node: a standby replicates main's row, and is no main for it.
CREATE OR REPLACE VIEW interrex.cluster_config AS
SELECT CASE WHEN pg_is_in_recovery() THEN 'secondary' ELSE 'main' END AS server_role,
       address AS main_server_ip,
       node_id AS main_node_id,
       epoch
FROM interrex.cluster_main;

INSERT INTO interrex.schema_version (version) VALUES (1) ON CONFLICT (only_row) DO NOTHING;
