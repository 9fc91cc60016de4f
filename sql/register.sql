-- Claim the lowest free slot, insert the trust and the audit row: one statement, all or nothing.
-- Gives one row if it wrote all three, and says whether the hub kept them as they were given:
--   xact_id                the transaction that registers it, not committed yet
--   trust_kept             the trust's row has this id, name and hash; null or false: it has not
--   slot_name/slot_number  the claimed slot; null: the hub did not keep the claim
--   triggers_behind        a trigger of the hub's runs afterwards and may alter them: ask read_back.sql
-- No row: look.sql tells why.
--
-- The statement itself is an INSERT, and nothing hides below a SELECT, so that the hub's auditing
-- sees it (log_statement = 'mod', pgaudit.log = 'write').
--
-- By hand in psql, behind open.sql:
--   \set register `cat sql/register.sql`
--   PREPARE register (text, text, text, text, text) AS :register
--   EXECUTE register (:'trust_id', 'St Thomas', 'GSTT', NULL, '<SHA-256 of the key>');
--
-- $1 id, $2 name, $3 code, $4 region or null, $5 SHA-256 of the API key in hex
WITH
-- The lowest free slot that no other registration is about to take; none if the trust exists, or
-- if this statement does not run inside the transaction that open.sql opened.
free_slot AS (
    SELECT slot_name
      FROM fl_kit_slot
     WHERE assigned_to_trust_id IS NULL
       AND NOT EXISTS (SELECT FROM trust WHERE name = $2)
       AND current_setting('register_trust.trust_id', true) = $1
     ORDER BY slot_number, slot_name
     LIMIT 1
       FOR UPDATE SKIP LOCKED
),
-- Only with a slot at hand; the setting tells look.sql that there was one. On a hub whose names
-- are unique the web API may have inserted this one since the snapshot; then nothing is inserted.
registered AS (
    INSERT INTO trust (id, name, code, region, api_key_hash, created_at)
    SELECT $1::uuid, $2, $3, $4, $5, now()
      FROM free_slot
     WHERE set_config('register_trust.slot', slot_name, true) IS NOT NULL
        ON CONFLICT DO NOTHING
 RETURNING id, name, api_key_hash
),
claimed AS (
    UPDATE fl_kit_slot
       SET assigned_to_trust_id = registered.id, assigned_at = now()
      FROM registered, free_slot
     WHERE fl_kit_slot.slot_name = free_slot.slot_name
 RETURNING fl_kit_slot.slot_name, fl_kit_slot.slot_number, fl_kit_slot.assigned_to_trust_id
)
-- No user: the deploy tooling registers, not a person signed in to the hub.
INSERT INTO trusts_audit (id, trust_id, trust_name, action, audit_date)
SELECT gen_random_uuid(), registered.id, registered.name, 'REGISTERED', now()
  FROM registered
RETURNING pg_current_xact_id()::text::bigint AS xact_id,
          (SELECT (id, name, api_key_hash) = ($1::uuid, $2, $5) FROM registered) AS trust_kept,
          (SELECT slot_name FROM claimed WHERE assigned_to_trust_id = $1::uuid) AS slot_name,
          (SELECT slot_number FROM claimed WHERE assigned_to_trust_id = $1::uuid) AS slot_number,
          -- The bits before 2, insert 4, update 16 of
          -- https://www.postgresql.org/docs/current/catalog-pg-trigger.html
          EXISTS (
              SELECT FROM pg_trigger
               WHERE tgrelid IN ('trust'::regclass, 'fl_kit_slot'::regclass, 'trusts_audit'::regclass)
                 AND tgtype & 2 = 0
                 AND tgtype & 20 <> 0
                 AND tgenabled <> 'D'
                 AND NOT tgisinternal
          ) AS triggers_behind;
