-- Optional indexes for a live hub. Run with psql; safe to run again at any time:
--
--   psql "$DATABASE_URL" -f sql/indexes.sql
--
-- They are built CONCURRENTLY, so that heartbeats go on. That needs a session without a transaction.
-- Connect to the server itself: the session holds a lock, which a pooler of transactions would lose.
--   trust_name_unique      one trust of a name, enforced by the hub itself; finds a name quickly
--   fl_kit_slot_free       the next free slot without reading the pool; holds free slots only
\set ON_ERROR_STOP on

-- No limit: a build may take long.
SET statement_timeout = 0;
SET lock_timeout = 0;

-- The first index cannot be built while two trusts have one name: name them, and change nothing.
DO $$
DECLARE
    duplicates text;
BEGIN
    -- Two runs at once would mistake each other's unfinished indexes for leftovers.
    IF NOT pg_try_advisory_lock(hashtextextended('register-trust indexes', 0)) THEN
        RAISE EXCEPTION 'no index was built: another run of this script is at work'
              USING HINT = 'Wait for it, then run this script again.';
    END IF;
    SELECT string_agg(format('%L (%s)', name, ids), ', ' ORDER BY name)
      INTO duplicates
      FROM (
               SELECT name, string_agg(id::text, ' ' ORDER BY created_at, id) AS ids
                 FROM trust
                GROUP BY name
               HAVING count(*) > 1
           ) AS several;
    IF duplicates IS NOT NULL THEN
        RAISE EXCEPTION 'no index was built: several trusts share a name: %', duplicates
              USING HINT = 'Oldest first. Rename or delete the others, then run this script again.';
    END IF;
END
$$;

-- Queries do not use what an interrupted build left behind, and IF NOT EXISTS would mistake it
-- for the index.
SELECT format('DROP INDEX CONCURRENTLY %s', indexrelid::regclass)
  FROM pg_index
 WHERE indexrelid IN (to_regclass('trust_name_unique'), to_regclass('fl_kit_slot_free'))
   AND NOT indisvalid
\gexec

CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS trust_name_unique
    ON trust (name);

CREATE INDEX CONCURRENTLY IF NOT EXISTS fl_kit_slot_free
    ON fl_kit_slot (slot_number, slot_name)
 WHERE assigned_to_trust_id IS NULL;
