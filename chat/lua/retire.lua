-- Remove the records whose retention has ended, at most 100 a call, and count them.
-- Returns how many went
local due = redis.call('ZRANGEBYSCORE', 'terminal', '-inf', int(now_ms()), 'LIMIT', 0, 100)
for _, member in ipairs(due) do
  local id, state = string.match(member, '^(%S+) (%S+)$')
  redis.call('DEL', 'job:' .. id, 'celery-task-meta-' .. id)
  redis.call('ZREM', 'terminal', member)
  redis.call('HINCRBY', 'acct', state, -1)
  redis.call('HINCRBY', 'acct', 'retired', 1)
end
return #due
