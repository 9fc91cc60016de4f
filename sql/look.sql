-- Look for the trust; where register.sql gave no row, this tells why. Always gives one row:
--   trust_id               the oldest of that name: older hubs allowed several; null: none
--   namesakes              how many trusts have that name
--   slot_name/slot_number  the slot that it has
--   mark                   open.sql's; if it is another or null, this is not its transaction
--   slot_was_free          register.sql had a slot at hand
--
-- By hand in psql, behind open.sql:
--   \set look `cat sql/look.sql`
--   PREPARE look (text) AS :look
--   EXECUTE look ('St Thomas');
--
-- $1 name
WITH
existing AS (
    SELECT id, count(*) OVER () AS namesakes
      FROM trust
     WHERE name = $1
     ORDER BY created_at, id
     LIMIT 1
),
assigned AS (
    SELECT slot_name, slot_number
      FROM fl_kit_slot
     WHERE assigned_to_trust_id = (SELECT id FROM existing)
     ORDER BY slot_number, slot_name
     LIMIT 1
)
SELECT existing.id::text                                              AS trust_id,
       coalesce(existing.namesakes, 0)                                AS namesakes,
       assigned.slot_name                                             AS slot_name,
       assigned.slot_number                                           AS slot_number,
       current_setting('register_trust.trust_id', true)               AS mark,
       coalesce(current_setting('register_trust.slot', true), '') <> '' AS slot_was_free
  FROM (VALUES (true)) AS always
  LEFT JOIN existing ON true
  LEFT JOIN assigned ON true;
