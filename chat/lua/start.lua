-- Take a permit and open an attempt, immediately before the upstream call. The same token gets the same grant again.
-- ARGV: 1 id, 2 worker, 3 token, 4 permits of the provider
-- Returns {'go', attempt, request, model, upstream model, remaining ms, queue ms, metadata for re-creation}
--       | {'wait'} no permit is free | {'skip', state} nothing to do | {'gone'}
local id, worker, token = ARGV[1], ARGV[2], ARGV[3]
local key = 'job:' .. id
local job = redis.call('HMGET', key, 'state', 'token', 'provider', 'queue', 'seq', 'deadline', 'created', 'attempts',
  'request', 'model', 'upstream_model', 'lane', 'metadata', 'ttl')
local state, provider, queue, deadline = job[1], job[3], job[4], tonumber(job[6])
if not state then return {'gone'} end
local now = now_ms()

local function grant(attempt, started)
  local record = cjson.encode({provider = provider, queue = queue, lane = job[12], model = job[10], upstream_model = job[11],
    metadata = job[13], created = job[7], deadline = job[6], ttl = job[14], attempt = attempt, started = started})
  return {'go', attempt, job[9], job[10], job[11], int(deadline - now), int(started - job[7]), record}
end

if state == 'calling' then
  if job[2] ~= token then return {'skip', state} end
  local attempt = cjson.decode(redis.call('HGET', key, 'a:' .. job[8]))
  return grant(attempt.number, attempt.started_at)
end
if TERMINAL[state] then return {'skip', state} end
if now >= deadline then
  end_job(id, state, 'expired', nil, error_json(id, 'deadline_exceeded', 'the deadline passed while the job was queued'), '', now)
  return {'skip', 'expired'}
end

if redis.call('ZCARD', 'leases:' .. provider) >= tonumber(ARGV[4]) then
  -- The wake-up stays in this worker's hand: it counts as sent just now, so that the keeper does not call it lost.
  -- Its own number stays in the record: the mark must never pass what still lies in the list.
  redis.call('ZADD', 'queued:' .. queue, redis.call('INCR', 'seq:' .. queue), id)
  return {'wait'}
end

redis.call('ZADD', 'leases:' .. provider, int(now), id .. ' ' .. token)
redis.call('ZREM', 'queued:' .. queue, id)
local mark = redis.call('GET', 'mark:' .. queue)
if not mark or tonumber(mark) < tonumber(job[5]) then redis.call('SET', 'mark:' .. queue, job[5]) end
local attempt = tonumber(job[8] or '0') + 1
open_attempt(id, attempt, worker, token, now)
redis.call('HSET', key, 'token', token, 'worker', worker)
move(id, state, 'calling', worker)
return grant(attempt, now)
