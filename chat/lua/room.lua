-- How many batch jobs of a provider may start now; -1 when no job at all may, since it is drained.
-- ARGV: 1 provider
local settings = settings_of(ARGV[1], '')
return batch_room(ARGV[1], settings, now_ms())
