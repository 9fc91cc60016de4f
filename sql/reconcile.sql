-- Add the configured slots that are missing from the pool; one that is there is never touched.
-- In a stable order, so that two registrations adding the same names wait and do not deadlock.
--
-- By hand in psql, behind open.sql:
--   \set reconcile `cat sql/reconcile.sql`
--   PREPARE reconcile (text[], int[]) AS :reconcile
--   EXECUTE reconcile ('{Trust_1,Trust_2}', '{1,2}');
--
-- $1 slot names, $2 their numbers
INSERT INTO fl_kit_slot (slot_name, slot_number)
SELECT slot_name, slot_number
  FROM unnest($1::text[], $2::int[]) AS configured (slot_name, slot_number)
 ORDER BY slot_name
    ON CONFLICT (slot_name) DO NOTHING;
