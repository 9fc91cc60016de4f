-- The registry as an operator wants to see it before and after a registration: how many slots are
-- free, which trusts have none, which names occur twice, and the last registrations. Reads only:
--
--   psql "$DATABASE_URL" -f sql/status.sql
--
-- The privileges of grants.sql are enough. Each list ends after 20 rows; the counts are complete.
\set ON_ERROR_STOP on
\pset footer off
\pset null -
\pset pager off

-- One snapshot for all queries. A standby can be asked, too: it may not have the latest.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL TIME ZONE 'UTC';
SET LOCAL statement_timeout = '30s';

\pset title 'Counts'
SELECT (SELECT count(*) FROM trust) AS trusts,
       (SELECT count(*) FROM fl_kit_slot) AS slots,
       (SELECT count(*) FROM fl_kit_slot WHERE assigned_to_trust_id IS NULL) AS free_slots,
       (
           SELECT count(*)
             FROM trust
            WHERE NOT EXISTS (SELECT FROM fl_kit_slot WHERE assigned_to_trust_id = trust.id)
       ) AS trusts_without_slot,
       (
           SELECT count(*)
             FROM (SELECT FROM trust GROUP BY name HAVING count(*) > 1) AS several
       ) AS names_that_occur_twice;

\pset title 'Free slots, in the order in which they are given out'
SELECT slot_number, slot_name
  FROM fl_kit_slot
 WHERE assigned_to_trust_id IS NULL
 ORDER BY slot_number, slot_name
 LIMIT 20;

\pset title 'Trusts without a slot, oldest first'
SELECT id, name, created_at
  FROM trust
 WHERE NOT EXISTS (SELECT FROM fl_kit_slot WHERE assigned_to_trust_id = trust.id)
 ORDER BY created_at, id
 LIMIT 20;

\pset title 'Names that occur twice: register-trust takes the oldest, which stands first'
SELECT name, count(*) AS trusts, string_agg(id::text, ' ' ORDER BY created_at, id) AS ids
  FROM trust
 GROUP BY name
HAVING count(*) > 1
 ORDER BY name
 LIMIT 20;

\pset title 'The last registrations, newest first (UTC)'
SELECT latest.created_at, latest.name, latest.id, slot_number, slot_name
  FROM (SELECT id, name, created_at FROM trust ORDER BY created_at DESC, id LIMIT 20) AS latest
  LEFT JOIN fl_kit_slot ON assigned_to_trust_id = latest.id
 ORDER BY latest.created_at DESC, latest.id, slot_number, slot_name;

ROLLBACK;
