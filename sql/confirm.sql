-- What became of a transaction: committed, aborted, or in progress.
-- Sent right behind COMMIT, and on a new connection if that one broke.
--
-- By hand in psql, with the number that register-trust named:
--   \set xact_id 42
--   \i sql/confirm.sql
SELECT pg_xact_status(:'xact_id'::xid8);
