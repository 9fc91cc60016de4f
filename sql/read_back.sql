-- Whether the trust and its slot are still as they were given: asked behind register.sql where a trigger
-- runs afterwards. (Not one that is deferred to the commit. The audit row, which the role may not read,
-- is not looked at.)
--
-- By hand in psql, behind register.sql:
--   \set read_back `cat sql/read_back.sql`
--   PREPARE read_back (text, text, text, text) AS :read_back
--   EXECUTE read_back (:'trust_id', 'St Thomas', '<SHA-256 of the key>', 'Trust_1');
--
-- $1 id, $2 name, $3 SHA-256 of the API key in hex, $4 the claimed slot
SELECT (SELECT true FROM trust WHERE (id, name, api_key_hash) = ($1::uuid, $2, $3)) AS trust_kept,
       (SELECT slot_name FROM fl_kit_slot WHERE (slot_name, assigned_to_trust_id) = ($4, $1::uuid))
           AS slot_name;
