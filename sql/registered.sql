-- Whether a trust is registered: asked on a new connection, of the primary (in_recovery.sql), after
-- its transaction (confirm.sql).
--
-- The transaction's number (confirm.sql) is not enough then. A server that crashed gives out
-- numbers again that had not reached its disk: the answer may be somebody else's.
--
-- By hand in psql, with the id that register-trust named:
--   \set trust_id 6d0d9d8e-3f6e-4b4e-9d6a-0d5c8b9a7f10
--   \i sql/registered.sql
SELECT EXISTS (SELECT FROM trust WHERE id = :'trust_id'::uuid) AS registered;
