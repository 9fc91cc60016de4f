-- Whether a kit is valid: true if one of the trusts of that name has the kit's trust_id. Null if
-- this statement does not run inside the transaction that open.sql opened: then the lock of the
-- name is not held, and nobody can say.
--
-- By hand in psql, behind open.sql and in_recovery.sql (which must say f), with the kit's id in
-- place of open.sql's:
--   \set check_kit `cat sql/check_kit.sql`
--   PREPARE check_kit (text, text) AS :check_kit
--   EXECUTE check_kit ('6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10', 'St Thomas');
--
-- $1 the kit's trust_id, $2 the name
SELECT CASE
           WHEN EXISTS (SELECT FROM trust WHERE id = $1::uuid AND name = $2) THEN true
           WHEN current_setting('register_trust.trust_id', true) = $1 THEN false
       END AS valid;
