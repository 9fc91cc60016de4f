-- Find the trust or register it, in one statement. Always gives one row:
--   trust_id               null if it was neither found nor registered
--   namesakes              how many trusts of that name were there: 0 if it is new
--   xact_id                the transaction that registers it, if it is new
--   slot_name/slot_number  the slot that it has or gets
--   slot_free              whether a slot could be claimed; if so and there is no trust,
--                          a unique index refused the row
--
-- By hand in psql, behind open.sql:
--   \set register `cat sql/register.sql`
--   PREPARE register (text, text, text, text, boolean) AS :register
--   EXECUTE register ('St Thomas', 'GSTT', NULL, '<SHA-256 of the key>', true);
--
-- $1 name, $2 code, $3 region or null, $4 SHA-256 of the API key in hex,
-- $5 whether an unknown trust may be registered (false: look only)
WITH
-- The oldest of that name: older hubs allowed several.
existing AS (
    SELECT id, count(*) OVER () AS namesakes
      FROM trust
     WHERE name = $1
     ORDER BY created_at, id
     LIMIT 1
),
-- The lowest free slot that no other registration is about to take.
free_slot AS (
    SELECT slot_name
      FROM fl_kit_slot
     WHERE assigned_to_trust_id IS NULL
       AND $5
       AND NOT EXISTS (SELECT FROM existing)
     ORDER BY slot_number, slot_name
     LIMIT 1
       FOR UPDATE SKIP LOCKED
),
-- Only with a slot at hand. On a hub whose names are unique the web API may have inserted
-- this one since the snapshot; then nothing is inserted, and the next look finds it.
registered AS (
    INSERT INTO trust (id, name, code, region, api_key_hash, created_at)
    SELECT gen_random_uuid(), $1, $2, $3, $4, now()
      FROM free_slot
        ON CONFLICT DO NOTHING
 RETURNING id, name, pg_current_xact_id()::text::bigint AS xact_id
),
claimed AS (
    UPDATE fl_kit_slot
       SET assigned_to_trust_id = registered.id, assigned_at = now()
      FROM registered, free_slot
     WHERE fl_kit_slot.slot_name = free_slot.slot_name
 RETURNING fl_kit_slot.slot_name, fl_kit_slot.slot_number
),
-- No user: the deploy tooling registers, not a person signed in to the hub.
audited AS (
    INSERT INTO trusts_audit (id, trust_id, trust_name, action, audit_date)
    SELECT gen_random_uuid(), registered.id, registered.name, 'REGISTERED', now()
      FROM registered
),
assigned AS (
    SELECT slot_name, slot_number
      FROM fl_kit_slot
     WHERE assigned_to_trust_id = (SELECT id FROM existing)
     ORDER BY slot_number, slot_name
     LIMIT 1
)
SELECT coalesce(existing.id, registered.id)::text AS trust_id,
       coalesce(existing.namesakes, 0)            AS namesakes,
       registered.xact_id                         AS xact_id,
       slot.slot_name                             AS slot_name,
       slot.slot_number                           AS slot_number,
       EXISTS (SELECT FROM free_slot)             AS slot_free
  FROM (VALUES (true)) AS always
  LEFT JOIN existing ON true
  LEFT JOIN registered ON true
  LEFT JOIN (SELECT * FROM claimed UNION ALL SELECT * FROM assigned) AS slot ON true;
