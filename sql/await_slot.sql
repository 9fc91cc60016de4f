-- Every free slot is locked by a registration under way: wait until the lowest is taken or
-- given back, and lock it. No row: all slots are taken.
--
-- That slot alone. A statement that went on to the next one would keep the lock of a slot that
-- was taken meanwhile (give_back.sql) while it waits, and even SKIP LOCKED can come to wait for
-- such a lock: in PostgreSQL 15, where the slot's taker commits at that very moment.
--
-- By hand in psql, behind open.sql:
--   \i sql/await_slot.sql
SELECT slot_name
  FROM fl_kit_slot
 WHERE slot_name = (
           SELECT slot_name
             FROM fl_kit_slot
            WHERE assigned_to_trust_id IS NULL
            ORDER BY slot_number, slot_name
            LIMIT 1
       )
   FOR UPDATE;
