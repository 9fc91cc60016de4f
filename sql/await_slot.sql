-- Every free slot is locked by a registration under way: wait until one of them gives its
-- slot back, and lock it. No row: all slots are taken.
SELECT slot_name
  FROM fl_kit_slot
 WHERE assigned_to_trust_id IS NULL
 ORDER BY slot_number, slot_name
 LIMIT 1
   FOR UPDATE;
