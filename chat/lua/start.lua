-- Take a permit and open an attempt, immediately before the upstream call. The same token gets the same grant again.
-- ARGV: 1 id, 2 worker, 3 token, 4 'park' when an interactive job has waited long enough in its slot, 'back' when the
--       worker is told to stop
-- Returns {'go', room, attempt, request, model, upstream model, remaining ms, queue ms, record, lane, request id,
--          refused, answered, unknown}: the record is for re-creation, the counts are those of earlier attempts
--       | {'wait', room, ms, why} | {'parked', room, why} | {'skip', room, state} nothing to do | {'gone', room}
--       | {'back', room, why}: the wake-up lies in its list again
-- room: how many batch jobs of the provider may start now; -1 when no job at all may
local id, worker, token = ARGV[1], ARGV[2], ARGV[3]
local key = 'job:' .. id
local fields = {'state', 'token', 'provider', 'queue', 'seq', 'deadline', 'created', 'attempts', 'model',
  'upstream_model', 'lane', 'metadata', 'ttl', 'budget', 'match', 'cost', 'order', 'rid', 'refused', 'answered', 'unknown',
  'on_lost', 'owner', 'idem', 'waiting'}
local job = {}
for i, value in ipairs(redis.call('HMGET', key, unpack(fields))) do job[fields[i]] = value or nil end
if not job.state then return {'gone', 0} end
local now, deadline, provider = now_ms(), tonumber(job.deadline), job.provider
local settings, limit = settings_of(provider, job.match)
-- First what `life` wants to know.
local said = redis.call('MGET', 'chatd:run', 'chatd:life', 'chatd:alive', 'drained:' .. provider, 'mark:' .. (job.queue or ''))

local function reply(what, ...)
  return {what, batch_room(provider, settings, now), ...}
end

local function grant(room, attempt, started)
  -- The record of the job is what was read of it, but for what changes from attempt to attempt.
  job.state, job.token, job.seq, job.attempts, job.waiting = nil, nil, nil, nil, nil
  job.attempt, job.started = attempt, started
  -- In the record it is of the version before.
  local request = redis.call('GET', 'request:' .. id) or redis.call('HGET', key, 'request')
  return {'go', room, attempt, request, job.model, job.upstream_model, int(deadline - now), int(started - job.created),
    cjson.encode(job), job.lane, job.rid or '', tonumber(job.refused or 0), tonumber(job.answered or 0), tonumber(job.unknown or 0)}
end

-- The wake-up has left the list: what was sent before it and is not started 30 s from now is lost.
local function leave_list()
  local mark = said[5]
  if not mark or tonumber(mark) < tonumber(job.seq) then redis.call('SET', 'mark:' .. job.queue, job.seq) end
end

local function wait(ms, why)
  -- The wake-up stays in this worker's hand: it counts as sent just now, so that the keeper does not call it lost.
  -- Its own number stays in the record: the mark must never pass what still lies in the list.
  redis.call('ZADD', 'queued:' .. job.queue, redis.call('INCR', 'seq:' .. job.queue), id)
  if job.seq == '0' then  -- It has been taken from the list: others may come back.
    redis.call('HSET', key, 'seq', -1)
    redis.call('HINCRBY', 'budget:' .. job.budget, 'front ' .. job.lane, -1)
  end
  return reply('wait', int(math.max(1, math.ceil(ms))), why)
end

-- The wake-up goes back to the front of its list, as it was fetched just before its provider was drained or its worker
-- told to stop: behind those that were put back before it and are of older jobs, since threads come here in any order.
local MOST_BEFORE = 100
local function put_back(why)
  if job.seq == '-1' then  -- It came back to the front before; again nobody is sent past it.
    redis.call('HSET', key, 'seq', 0)
    redis.call('HINCRBY', 'budget:' .. job.budget, 'front ' .. job.lane, 1)
  end
  local message = wake_up(id, job.queue, redis.call('INCR', 'seq:' .. job.queue))
  local before = {}
  while message and #before < MOST_BEFORE do
    local other = string.match(redis.call('LINDEX', job.queue, -1) or '', 'job_%w+')
    local order = other and redis.call('HGET', 'job:' .. other, 'order')
    if not order or tonumber(order) >= tonumber(job.order) then break end
    before[#before + 1] = redis.call('RPOP', job.queue)
  end
  if message then redis.call('RPUSH', job.queue, message) end
  for i = #before, 1, -1 do redis.call('RPUSH', job.queue, before[i]) end
  return reply('back', why)
end

local function park_for(why)
  leave_list()
  park(id, 'queued', job, why)
  return reply('parked', why)
end

if job.state == 'calling' then
  if job.token ~= token then return reply('skip', job.state) end
  local attempt = attempt_of(id, token)
  return grant(batch_room(provider, settings, now), attempt.number, attempt.started_at)
end
if job.state ~= 'queued' then return reply('skip', job.state) end
if now >= deadline then
  leave_list()
  end_job(id, job.state, 'expired', nil, error_json(id, 'deadline_exceeded', 'the deadline passed while the job was queued'), '', now)
  return reply('skip', 'expired')
end
if said[4] then return put_back('drained') end
if ARGV[4] == 'back' then return put_back('stopping') end
if not settings then return wait(1000, 'settings') end
if is_recalling(provider, now, said) then return wait(50, 'restart') end

local interactive = job.lane == 'interactive'
local b, stored = load_budget(job.budget)
local ms, why = opens_in(b, settings, limit, now, job.lane, tonumber(job.cost))
if ms > 0 then
  if CLOSED[why] and now + ms >= deadline then
    leave_list()
    end_job(id, 'queued', 'failed', nil, closed_error(id, provider, why, now + ms), '', now, why)
    return reply('skip', 'failed')
  end
  if interactive and ms <= SLOT_WAIT_MS and ARGV[4] ~= 'park' then return wait(ms, why) end
  return park_for(why)
end
if interactive and b.turn then
  -- The rate is a batch job's for once; it was released and is on its way.
  if math.abs(now - b.turn) < TURN_MS then return wait(20, 'turn') end
  b.turn = nil
end

local seen = look_at_permits(provider)
local free, room, turn = permits_of(provider, settings, now, seen)
if interactive then
  if free <= 0 then return wait(50, 'permits') end
  if turn and free <= 1 then
    redis.call('HSETNX', 'lanes:' .. provider, 'turn', int(now))
    return wait(20, 'turn')
  end
elseif room <= 0 then
  if b.turn then  -- Its turn has passed: people go on, and it waits for the next one.
    b.people, b.turn = 0, nil
    save_budget(job.budget, b, stored)
  end
  return park_for('permits')
end

charge(b, limit, now, tonumber(job.cost))
if interactive then
  b.people = (b.people or 0) + 1
  seen.since, seen.active = seen.since + 1, now
  redis.call('HSET', 'lanes:' .. provider, 'since', int(seen.since), 'active', int(now))
else
  b.people, b.turn = 0, nil
  seen.since, seen.batch = 0, seen.batch + 1
  redis.call('HSET', 'lanes:' .. provider, 'since', '0')
end
if seen.turn then redis.call('HDEL', 'lanes:' .. provider, 'turn') end
seen.in_use, seen.turn = seen.in_use + 1, nil
if redis.call('ZREM', 'queued:' .. job.queue, id) == 1 then  -- As `unqueue` does, in one write with the rest.
  b[job.lane] = (b[job.lane] or 0) - 1
  if job.seq == '0' then b['front ' .. job.lane] = (b['front ' .. job.lane] or 0) - 1 end
  if interactive then seen.waiting = seen.waiting - 1 end
end
save_budget(job.budget, b, stored)
-- Once a minute: it is forgotten after days.
if math.floor((stored.last or 0) / 60000) ~= math.floor(now / 60000) then
  redis.call('ZADD', 'budgets:' .. provider, now, job.budget)
end
take_permit(provider, id .. ' ' .. token, job.lane, job.budget, now)
count_start(job.queue, now)
leave_list()
local attempt = tonumber(job.attempts or '0') + 1
if job.waiting then redis.call('HDEL', key, 'waiting') end
move(id, job.queue, 'queued', 'calling', worker, open_attempt(attempt, worker, token, now))
local _, left = permits_of(provider, settings, now, seen)  -- As it is now, without asking again.
return grant(left, attempt, now)
