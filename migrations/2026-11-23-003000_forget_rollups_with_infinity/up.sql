-- An infinite value hid the largest finite one of its block; what is forgotten is made anew.
DELETE FROM hub.rollups WHERE level < 2 AND battery_id IN (
    SELECT battery_id FROM hub.rollups
    WHERE level < 2 AND column_name NOT IN ('received', 'test_time', 'time')
        AND (greatest = 'Infinity' OR least = '-Infinity')
);
COMMENT ON COLUMN hub.rollups."values" IS 'Finite values in the block; of received, test_time and time all but null and NaN.';
