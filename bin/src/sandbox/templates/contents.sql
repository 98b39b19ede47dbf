CREATE ROLE replicator LOGIN REPLICATION PASSWORD '{REPLICATOR}';

CREATE ROLE radius LOGIN PASSWORD '{RADIUS}';

CREATE ROLE app LOGIN PASSWORD '{APPLICATION}';

CREATE TABLE radcheck (
    id        serial PRIMARY KEY,
    username  text NOT NULL,
    attribute text NOT NULL,
    op        varchar(2) NOT NULL DEFAULT ':=',
    value     text NOT NULL
);

CREATE INDEX ON radcheck (username);

INSERT INTO radcheck (username, attribute, value) VALUES ('probe', 'Cleartext-Password', 'let-me-in');

GRANT SELECT ON radcheck TO radius;

CREATE TABLE written (
    id         bigint PRIMARY KEY,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

GRANT SELECT, INSERT ON written TO app;

SELECT pg_create_physical_replication_slot('replica_2', true);

SELECT pg_create_physical_replication_slot('replica_3', true);

CHECKPOINT;

