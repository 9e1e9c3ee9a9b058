-- Let one call of a client begin, if its key may make it now.
-- ARGV: 1 client, 2 call, 3 calls a minute or '', 4 calls at the same time or '', 5 ms after which a call counts no more that
--       nobody has ended
-- Returns {'ok'} | {'rate', ms until it may} | {'calls'}
let_through()
local now, rate, most = now_ms(), tonumber(ARGV[3]), tonumber(ARGV[4])
local calls, due = 'client:' .. ARGV[1] .. ':calls', 'client:' .. ARGV[1] .. ':due'
if most then
  redis.call('ZREMRANGEBYSCORE', calls, '-inf', int(now))
  if redis.call('ZCARD', calls) >= most and not redis.call('ZSCORE', calls, ARGV[2]) then return {'calls'} end
end
if rate then
  -- When a call would be due that kept the distance of all before it; a sixth of a minute's calls may come at once.
  local distance = 60000 / rate
  local at = math.max(now, tonumber(redis.call('GET', due) or 0))
  local early = at - now - (math.max(1, rate / 6) - 1) * distance
  if early > 0 then return {'rate', int(math.ceil(early))} end
  redis.call('SET', due, int(at + distance), 'PX', int(at + distance - now + 1000))
end
if most then
  redis.call('ZADD', calls, int(now + ARGV[5]), ARGV[2])
  redis.call('PEXPIRE', calls, ARGV[5])
end
return {'ok'}
