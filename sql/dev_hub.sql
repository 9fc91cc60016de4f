-- The development hub: the three tables that the hub's migrations own, as far as
-- register-trust sees them, and a pool of slots. Safe to run again.

DO $$
BEGIN
    CREATE TYPE trustauditaction AS ENUM ('REGISTERED', 'DELETED');
EXCEPTION
    WHEN duplicate_object THEN NULL;
END
$$;

CREATE TABLE IF NOT EXISTS trust (
    id              uuid PRIMARY KEY,
    name            varchar NOT NULL,
    last_heartbeat  timestamptz,
    code            varchar,
    region          varchar,
    api_key_hash    varchar,
    created_at      timestamptz NOT NULL
);

CREATE TABLE IF NOT EXISTS fl_kit_slot (
    slot_name             varchar PRIMARY KEY,
    slot_number           int NOT NULL,
    assigned_to_trust_id  uuid REFERENCES trust (id),
    assigned_at           timestamptz
);
CREATE INDEX IF NOT EXISTS ix_fl_kit_slot_assigned_to_trust_id
    ON fl_kit_slot (assigned_to_trust_id);

CREATE TABLE IF NOT EXISTS trusts_audit (
    id                   uuid PRIMARY KEY,
    trust_id             uuid NOT NULL,
    trust_name           varchar NOT NULL,
    action               trustauditaction NOT NULL,
    modified_by_user_id  uuid,
    audit_date           timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS ix_trusts_audit_trust_id
    ON trusts_audit (trust_id);

INSERT INTO fl_kit_slot (slot_name, slot_number)
SELECT 'Trust_' || number, number
  FROM generate_series(1, 10) AS number
    ON CONFLICT (slot_name) DO NOTHING;
