-- Remove the records whose retention has ended, at most 100 a call, and count them; with a provider, also the budgets
-- of which nothing has been heard for two days.
-- ARGV: 1 provider or ''
-- Returns how many records went
local now = now_ms()
local due = redis.call('ZRANGEBYSCORE', 'terminal', '-inf', int(now), 'LIMIT', 0, 100)
for _, member in ipairs(due) do remove(string.match(member, '^(%S+) (%S+)$')) end
redis.call('ZREMRANGEBYSCORE', 'removed', '-inf', int(now - 60000))
if ARGV[1] ~= '' then
  redis.call('ZREMRANGEBYSCORE', 'workers:' .. ARGV[1], '-inf', int(now - DAY_MS))
  local key = 'budgets:' .. ARGV[1]
  for _, budget in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', int(now - 2 * DAY_MS), 'LIMIT', 0, 100)) do
    local b = redis.call('HMGET', 'budget:' .. budget, 'interactive', 'batch', 'closed_until')
    local idle = tonumber(b[1] or 0) == 0 and tonumber(b[2] or 0) == 0 and tonumber(b[3] or 0) <= now
    if idle and redis.call('HEXISTS', 'parked', budget) == 0 then
      redis.call('DEL', 'budget:' .. budget)
      redis.call('ZREM', key, budget)
    end
  end
end
return #due
