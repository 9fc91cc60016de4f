-- Open the registration's transaction and take the lock of its name: one round trip.
--
-- By hand in psql, with the key that register-trust derives from the name (registration.rs):
--   \set name 'St Thomas'
--   SELECT sha256('register-trust\000'::bytea || convert_to(:'name', 'UTF8')) AS digest \gset
--   SELECT ('x' || substr(:'digest', 3, 16))::bit(64)::bigint AS name_lock \gset
--   \i sql/open.sql

-- The role's own defaults are not trusted: under REPEATABLE READ the statement that looks for
-- the name would see the world as it was before the wait for the lock.
BEGIN;
SET LOCAL transaction_isolation = 'read committed';
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

-- Registrations of one name take turns. A statement of its own: the next one's snapshot
-- must be younger than this wait. It blocks no reader or writer of any table.
SELECT pg_advisory_xact_lock(:name_lock);

-- A look for a slot goes back to here when it finds none (give_back.sql).
SAVEPOINT look;
