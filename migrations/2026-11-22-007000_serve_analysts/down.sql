DROP SCHEMA analyst CASCADE;
DROP TRIGGER share_moved ON hub.placements;
DROP FUNCTION hub.share_moved;
DROP FUNCTION hub.add_tenant;
DROP FUNCTION hub.share_battery;
DROP FUNCTION hub.share_table;
DROP FUNCTION hub.tenant;
