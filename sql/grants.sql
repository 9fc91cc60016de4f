-- The least privileges of the role that register-trust logs in as. Run it as the tables' owner; safe
-- to run again:
--
--   psql "$DATABASE_URL" -v role=register_trust -f sql/grants.sql
--
-- It takes nothing away. PostgreSQL lets every role connect to a database and use its schema public;
-- where the hub took that away, the role also needs CONNECT on the database and USAGE on the schema.
-- In production the role needs rds_iam, too.
\set ON_ERROR_STOP on

BEGIN;

-- Find the trust (the oldest of its name), and check a kit. Also the answer to "what became of my
-- transaction". --require-existing and --check-kit need no more than the two SELECTs.
GRANT SELECT (id, name, created_at)
   ON trust TO :"role";

-- Register a new one. The role may not read the hash back. A hub with a trigger that could alter it
-- (before each row that is inserted here, or after inserts and updates on any of the three tables)
-- needs SELECT (api_key_hash) as well.
GRANT INSERT (id, name, code, region, api_key_hash, created_at)
   ON trust TO :"role";

-- Find the trust's slot, or the lowest free one.
GRANT SELECT (slot_name, slot_number, assigned_to_trust_id)
   ON fl_kit_slot TO :"role";

-- Claim it. PostgreSQL needs this for the lock, too.
GRANT UPDATE (assigned_to_trust_id, assigned_at)
   ON fl_kit_slot TO :"role";

-- Only for the reconcile, which adds configured slots that are missing. Leave it out if somebody
-- else adds the slots; then a registration that finds no slot fails.
GRANT INSERT (slot_name, slot_number)
   ON fl_kit_slot TO :"role";

-- Say in the audit that the trust was registered.
GRANT INSERT (id, trust_id, trust_name, action, audit_date)
   ON trusts_audit TO :"role";

COMMIT;
