-- Accept a job: one round trip for caps, liveness, record, counters, wake-up.
-- ARGV: 1 id, 2 provider, 3 queue, 4 lane, 5 model, 6 upstream model, 7 request JSON, 8 metadata JSON,
--       9 timeout ms, 10 reply channel or '', 11 worker grace ms or '' when nobody waits, 12 max jobs, 13 max bytes,
--       14 idempotency hash or '', 15 body hash, 16 policy for a lost call, 17 retention s
-- Returns {'ok', id} | {'joined', id, meta or ''} | {'mismatch', id} | {'full', what} | {'no_worker', seconds or ''}
local id, provider, queue = ARGV[1], ARGV[2], ARGV[3]
local key = 'job:' .. id
if redis.call('EXISTS', key) == 1 then return {'ok', id} end  -- a retry of this very call
local now = now_ms()

if ARGV[14] ~= '' then
  local known = redis.call('GET', 'idem:' .. ARGV[14])
  if known then
    local other, hash = string.match(known, '^(%S+) (%S+)$')
    local state = redis.call('HGET', 'job:' .. other, 'state')
    if state then
      if hash ~= ARGV[15] then return {'mismatch', other} end
      if TERMINAL[state] then return {'joined', other, redis.call('GET', 'celery-task-meta-' .. other) or ''} end
      if ARGV[10] ~= '' then
        -- One entry per process is enough: it tells all its waiters.
        local watch = redis.call('HGET', 'job:' .. other, 'watch') or ''
        if not string.find(' ' .. watch .. ' ', ' ' .. ARGV[10] .. ' ', 1, true) then
          redis.call('HSET', 'job:' .. other, 'watch', watch .. ' ' .. ARGV[10])
        end
      end
      return {'joined', other, ''}
    end
  end
end

if ARGV[11] ~= '' then
  local newest = redis.call('ZREVRANGE', 'workers:' .. provider, 0, 0, 'WITHSCORES')
  if not newest[2] then return {'no_worker', ''} end
  if now - newest[2] > tonumber(ARGV[11]) then return {'no_worker', int((now - newest[2]) / 1000)} end
end

local bytes = #ARGV[7]
local acct = redis.call('HMGET', 'acct', 'queued', 'waiting', 'bytes')
if (acct[1] or 0) + (acct[2] or 0) >= tonumber(ARGV[12]) then return {'full', 'jobs'} end
if (acct[3] or 0) + bytes > tonumber(ARGV[13]) then return {'full', 'bytes'} end

local deadline = now + ARGV[9]
redis.call('HSET', key, 'provider', provider, 'queue', queue, 'lane', ARGV[4], 'model', ARGV[5], 'upstream_model', ARGV[6],
  'request', ARGV[7], 'bytes', bytes, 'metadata', ARGV[8], 'created', int(now), 'deadline', int(deadline),
  'on_lost', ARGV[16], 'ttl', ARGV[17])
if ARGV[10] ~= '' then redis.call('HSET', key, 'watch', ARGV[10]) end
redis.call('ZADD', 'deadlines', int(deadline), id)
redis.call('HINCRBY', 'acct', 'accepted', 1)
redis.call('HINCRBY', 'acct', 'bytes', bytes)
if ARGV[14] ~= '' then
  redis.call('SET', 'idem:' .. ARGV[14], id .. ' ' .. ARGV[15], 'PX', int(ARGV[9] + ARGV[17] * 1000))
end
move(id, nil, 'queued')
push(id, queue)
return {'ok', id}
