-- Give a living trust a new API key (doc/operations.md): replace the hash that the hub keeps. The
-- trust's id, its slot and all that refers to it stay. After the commit, the old key opens nothing.
-- Safe to run again with the same hash, as after a connection that broke.
--
--   API_KEY_HASH=<SHA-256 of the key, in hex> \
--       psql "$DATABASE_URL" -v trust_id=6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10 -f sql/replace_key.sql
--
-- The hash comes from the environment, because other users of the machine can read a command's
-- arguments. Store the new kit durably first: the hub cannot give its key again.
--
-- There is no audit row unless you name its action: which actions there are is up to the hub's
-- migrations, and of those that every hub has (REGISTERED, DELETED) none fits. If the hub has one
-- that fits: -v audit_action=...
\set ON_ERROR_STOP on
\set api_key_hash `printf %s "$API_KEY_HASH"`

BEGIN;
-- now() becomes the right instant in columns with a time zone and without.
SET LOCAL TIME ZONE 'UTC';
-- A heartbeat holds the row for an instant only.
SET LOCAL lock_timeout = '30s';

-- psql puts no variables into a DO block.
SELECT set_config('register_trust.id', :'trust_id', true),
       set_config('register_trust.hash', :'api_key_hash', true) \g /dev/null
DO $$
BEGIN
    IF current_setting('register_trust.hash') !~ '^[0-9a-f]{64}$' THEN
        RAISE EXCEPTION 'nothing was changed: API_KEY_HASH is not a SHA-256 in lower-case hex';
    END IF;
    PERFORM FROM trust WHERE id = current_setting('register_trust.id')::uuid FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'nothing was changed: no trust has the id %',
              current_setting('register_trust.id');
    END IF;
END
$$;

UPDATE trust
   SET api_key_hash = :'api_key_hash'
 WHERE id = :'trust_id'::uuid;

\if :{?audit_action}
INSERT INTO trusts_audit (id, trust_id, trust_name, action, audit_date)
SELECT gen_random_uuid(), id, name, :'audit_action', now()
  FROM trust
 WHERE id = :'trust_id'::uuid;
\endif
COMMIT;

\echo 'the hub has the new key''s hash; the old key opens nothing any more'
\if :{?audit_action}
\else
\echo 'no audit row was written: no audit_action was named'
\endif
