-- Hard-delete a trust whose kit is lost, so that it can be registered again: its slot becomes
-- free, and the audit says that it was deleted. All or nothing; if another table of the hub refers to
-- the trust, PostgreSQL refuses and nothing is changed.
--
--   psql "$DATABASE_URL" -v trust_id=6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10 -f sql/delete_trust.sql
\set ON_ERROR_STOP on

BEGIN;
-- now() becomes the right instant in columns with a time zone and without.
SET LOCAL TIME ZONE 'UTC';
-- A heartbeat or a registration holds a row for a short time only.
SET LOCAL lock_timeout = '30s';

-- psql puts no variables into a DO block.
SELECT set_config('register_trust.id', :'trust_id', true) \g /dev/null
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM trust WHERE id = current_setting('register_trust.id')::uuid
    ) THEN
        RAISE EXCEPTION 'nothing was changed: no trust has the id %',
              current_setting('register_trust.id');
    END IF;
END
$$;

UPDATE fl_kit_slot
   SET assigned_to_trust_id = NULL, assigned_at = NULL
 WHERE assigned_to_trust_id = :'trust_id'::uuid;

INSERT INTO trusts_audit (id, trust_id, trust_name, action, audit_date)
SELECT gen_random_uuid(), id, name, 'DELETED', now()
  FROM trust
 WHERE id = :'trust_id'::uuid;

DELETE FROM trust
 WHERE id = :'trust_id'::uuid;
COMMIT;
