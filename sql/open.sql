-- Open the registration's transaction and take the lock of its name: one round trip.
--
-- By hand in psql, with an id for the trust and the key that register-trust derives from the name
-- (transaction.rs):
--   \set name 'St Thomas'
--   \set trust_id 6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10
--   SELECT encode(sha256('register-trust\000'::bytea || convert_to(:'name', 'UTF8')), 'hex')
--       AS digest \gset
--   SELECT ('x' || left(:'digest', 16))::bit(64)::bigint AS name_lock \gset
--   \i sql/open.sql

-- The role's own defaults are not trusted: under REPEATABLE READ the statement that looks for
-- the name would see the world as it was before the wait for the lock.
BEGIN;
SET LOCAL transaction_isolation = 'read committed';
-- A standby refuses this. Left out where nothing is to be written: a standby can be looked at.
SET LOCAL transaction_read_only = off;

-- Older hubs keep UTC in `timestamp without time zone`, newer ones have `timestamptz`.
-- In this zone now() becomes the right instant in both.
SET LOCAL TIME ZONE 'UTC';

-- No wait without an end. The lock's limit is the shorter, so that it is what gets reported.
SET LOCAL statement_timeout = '30s';
SET LOCAL lock_timeout = '29s';
SET LOCAL idle_in_transaction_session_timeout = '60s';

-- What the server acknowledged must survive its crash, whatever the role's setting.
SELECT set_config('synchronous_commit', 'on', true)
 WHERE current_setting('synchronous_commit') = 'off';

-- The statements that follow ask for this mark. A pooler that runs them on another connection, or
-- outside this transaction, is recognised by its absence.
SELECT set_config('register_trust.trust_id', :'trust_id', true);

-- Registrations of one name take turns. A statement of its own: the next one's snapshot
-- must be younger than this wait. It blocks no reader or writer of any table.
SELECT pg_advisory_xact_lock(:name_lock);

-- A claim that found no slot goes back to here (give_back.sql).
SAVEPOINT claim;

-- Whether the role may read back the hash that it writes. Under the least privileges (grants.sql)
-- it may not; then nothing may be there that could alter it: an enabled trigger for each row before
-- inserts (https://www.postgresql.org/docs/current/catalog-pg-trigger.html: the bits row 1, before
-- 2, insert 4). 'needed': there is one. And whether the server is a standby, asked before anything
-- else is looked at, for it can be promoted at any moment.
SELECT CASE
           WHEN has_column_privilege(to_regclass('trust'), 'api_key_hash', 'SELECT') THEN 'yes'
           WHEN EXISTS (
               SELECT FROM pg_trigger
                WHERE tgrelid = to_regclass('trust') AND tgtype & 7 = 7 AND tgenabled <> 'D'
           ) THEN 'needed'
           ELSE 'no'
       END                 AS hash_can_be_read,
       pg_is_in_recovery() AS recovering;
