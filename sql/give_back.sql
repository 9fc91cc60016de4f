-- A claim that got no slot gives back its row locks, before anything is waited for.
--
-- A slot that was free in the claim's snapshot and taken when the claim came to lock it stays
-- locked by it (SELECT's "The Locking Clause"). Whoever holds such locks and waits for another
-- slot can stand in a circle with others: a deadlock.
--
-- By hand in psql, behind open.sql:
--   \i sql/give_back.sql
ROLLBACK TO SAVEPOINT claim;
