-- Accept a job: one round trip for caps, liveness, record, counters, wake-up.
-- ARGV: 1 id, 2 provider, 3 queue, 4 lane, 5 model, 6 upstream model, 7 request JSON, 8 metadata JSON,
--       9 timeout ms, 10 reply channel or '', 11 worker grace ms or '' when nobody waits,
--       12 max jobs, 13 max bytes, 14 max jobs of the lane, 15 max bytes of the lane,
--       16 idempotency hash or '', 17 body hash, 18 policy for a lost call, 19 retention s,
--       20 budget, 21 its match, 22 estimated tokens, 23 request id, 24 owner or '',
--       25 whether the caller is to see the record, or ''
-- Returns {'ok', id} | {'ok', id, created (ms), deadline (ms), state, where it stands, see `standing`}
--       | {'joined', id, meta or ''} | {'mismatch', id} | {'no_worker', seconds or ''}
--       | {'drained', since when (ms)} | {'full', what, seconds} | {'closed', why, ms, when it opens}
local id, provider, queue, lane = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local budget, match = ARGV[20], ARGV[21]
local key = 'job:' .. id
local there = redis.call('EXISTS', key, 'chatd:memory')
if there > 0 and redis.call('EXISTS', key) == 1 then return {'ok', id} end  -- a retry of this very call
local now = now_ms()

if ARGV[16] ~= '' then
  local known = redis.call('GET', 'idem:' .. ARGV[16])
  if known then
    local other, hash = string.match(known, '^(%S+) (%S+)$')
    local state = redis.call('HGET', 'job:' .. other, 'state')
    if state then
      if hash ~= ARGV[17] then return {'mismatch', other} end
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
  local since = drained_since(provider)
  if since then return {'drained', int(since)} end
  local newest = redis.call('ZREVRANGE', 'workers:' .. provider, 0, 0, 'WITHSCORES')
  if not newest[2] then return {'no_worker', ''} end
  if now - newest[2] > tonumber(ARGV[11]) then return {'no_worker', int((now - newest[2]) / 1000)} end
end

-- Until about a hundredth of the queue has been worked off: sooner, a caller would find it full again.
local function full(what, cap)
  local rate = starts_per_s(queue, now)
  local seconds = rate > 0 and math.max(1, tonumber(cap) / 100) / rate or 30
  return {'full', what, int(math.max(1, math.min(600, math.ceil(seconds))))}
end

if there > 0 then return {'full', 'memory', '5'} end
local bytes = #ARGV[7]
local acct = redis.call('HMGET', 'acct', 'queued', 'waiting', 'bytes')
local held = redis.call('HMGET', 'lane:' .. queue, 'jobs', 'bytes')
if (acct[1] or 0) + (acct[2] or 0) >= tonumber(ARGV[12]) then return full('jobs', ARGV[12]) end
if (acct[3] or 0) + bytes > tonumber(ARGV[13]) then return full('bytes', 100) end
if tonumber(held[1] or 0) >= tonumber(ARGV[14]) then return full('lane jobs', ARGV[14]) end
if (held[2] or 0) + bytes > tonumber(ARGV[15]) then return full('lane bytes', 100) end

-- A closed budget parks the job at once, so that it never stands in the way of another one's.
local deadline = now + ARGV[9]
local known = redis.call('HMGET', 'budget:' .. budget, 'match', 'closed_until', 'rate')
local settings, limit = settings_of(provider, match)
local parked, paced = false, false
-- Most budgets have no limit and are open.
if settings and (known[2] or known[3] or limit.rpm or limit.tpm or limit.rpd) then
  local b = load_budget(budget)
  local cost = tonumber(ARGV[22])
  local ms, why = opens_in(b, settings, limit, now, lane, cost)
  if CLOSED[why] and now + ms >= deadline then return {'closed', why, int(ms), int(now + ms)} end
  paced = is_paced(b, limit, now)
  if ms > 0 or paced then
    local ahead = redis.call('ZCARD', 'parked:' .. budget .. ':interactive')
    local listed = redis.call('HMGET', 'budget:' .. budget, 'interactive', 'batch')
    if lane == 'batch' then
      ahead = ahead + redis.call('ZCARD', 'parked:' .. budget .. ':batch') + (listed[1] or 0) + (listed[2] or 0)
      parked = ms > 0 or ahead > 0
    else
      local rate = rates_current(b, limit, now)
      local turn_ms = rate and (listed[1] or 0) * 1000 / rate or 0
      parked = ahead > 0 or ms + turn_ms > SLOT_WAIT_MS
    end
    if parked then parked = why or 'rate' end
  end
end

local record, order = enter_job(id, {provider = provider, queue = queue, lane = lane, model = ARGV[5], upstream_model = ARGV[6],
  request = ARGV[7], metadata = ARGV[8], created = int(now), deadline = int(deadline), on_lost = ARGV[18], ttl = ARGV[19],
  budget = budget, match = match, cost = ARGV[22], rid = ARGV[23],
  owner = ARGV[24] ~= '' and ARGV[24] or nil,
  idem = ARGV[16] ~= '' and ARGV[16] .. ' ' .. ARGV[17] or nil, watch = ARGV[10] ~= '' and ARGV[10] or nil}, now, known[1])
if ARGV[16] ~= '' then
  redis.call('SET', 'idem:' .. ARGV[16], id .. ' ' .. ARGV[17], 'PX', int(ARGV[9] + ARGV[19] * 1000))
end
if parked then
  park(id, nil, {provider = provider, queue = queue, lane = lane, budget = budget, match = match, order = order}, parked, record)
else
  -- Those behind it will be parked and come back to the front of the list: they must not overtake it for ever. Of batch
  -- it is the only one in the list and goes to the front itself; people there keep their order.
  push(id, queue, budget, lane, paced and lane == 'batch', paced, record)
  move(id, queue, nil, 'queued', nil, record)
end
if order % 100 == 0 then redis.call('XTRIM', 'audit', 'MAXLEN', '~', 20000) end
if ARGV[25] == '' then return {'ok', id} end
return {'ok', id, int(now), int(deadline), parked and 'waiting' or 'queued', standing(id)}
