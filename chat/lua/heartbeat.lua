-- A worker process says that it lives, renews the leases of its calls and learns which of them to stop.
-- ARGV: 1 worker, 2 provider, 3 the life of Redis that it knows, or '', then "<job> <token>" for each call
-- Returns the "<job> <token> <reason>" to stop, or nil in another life: the worker has to say first what it remembers
let_through()
local now = now_ms()
local present = life(now)
if ARGV[3] ~= '' and ARGV[3] ~= present then return false end
now = int(now)
redis.call('SET', 'chatd:alive', now)
redis.call('ZADD', 'workers:' .. ARGV[2], now, ARGV[1])
local stop = {}
for i = 4, #ARGV do
  local id, token = string.match(ARGV[i], '^(%S+) (%S+)$')
  local job = redis.call('HMGET', 'job:' .. id, 'state', 'token', 'cancel', 'lane', 'budget')
  if job[1] == 'calling' and job[2] == token then
    take_permit(ARGV[2], ARGV[i], job[4], job[5], now)
    if job[3] then stop[#stop + 1] = ARGV[i] .. ' cancelled' end
  elseif job[1] and TERMINAL[job[1]] then
    stop[#stop + 1] = ARGV[i] .. ' ' .. job[1]
  end
end
return stop
