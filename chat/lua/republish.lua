-- Send lost wake-ups again, at most 100 a call.
-- ARGV: 1 queue, 2 the highest sequence number that counts as lost, 3 'empty' to act only while the list is empty
-- Returns how many were sent
local queue = ARGV[1]
if ARGV[3] == 'empty' and redis.call('LLEN', queue) > 0 then return 0 end
local lost = redis.call('ZRANGEBYSCORE', 'queued:' .. queue, '-inf', ARGV[2], 'LIMIT', 0, 100)
for _, id in ipairs(lost) do
  local job = redis.call('HMGET', 'job:' .. id, 'state', 'budget', 'lane')
  if job[1] == 'queued' then
    push(id, queue, job[2], job[3])
    audit(id, 'republished')
    redis.call('HINCRBY', 'acct', 'republished', 1)
  else
    redis.call('ZREM', 'queued:' .. queue, id)
  end
end
return #lost
