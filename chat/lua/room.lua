-- How many batch jobs of a provider may start now.
-- ARGV: 1 provider
local settings = settings_of(ARGV[1], '')
return batch_room(ARGV[1], settings, now_ms())
