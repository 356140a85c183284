COMMENT ON COLUMN hub.rollups."values" IS 'Values in the block that are neither null nor NaN.';
