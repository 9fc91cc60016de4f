-- Whether the server is a standby. Asked first, in a statement of its own: a standby that answers
-- the later questions out of an old state, and is promoted before it is asked this one, would be
-- taken for the primary.
--
-- By hand in psql:
--   \i sql/in_recovery.sql
SELECT pg_is_in_recovery();
