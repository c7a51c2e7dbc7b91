-- Since when a file's record is sealed: its record is suspended, or of a discharge whose time has passed, and must be kept
-- separate and apart (Criminal Records Act 6(2), 6.1). NULL: not sealed. A sealed file is in nobody's scope, whatever the terms
-- say. That there is a date decides, not which date it is: no scope reads a clock. Why it is sealed is not the hub's to know.
ALTER TABLE oms.offender ADD COLUMN sealed_on date;
