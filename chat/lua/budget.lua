-- Permits, lanes and parking: who may call next. The arithmetic of rates is in rates.lua.

local DAY_MS = 86400000
local SLOT_WAIT_MS = 1000      -- the longest that an interactive job waits for its budget in a worker's thread
local PEOPLE_MS = 2000         -- somebody is there until so long after the last interactive job began or ended
local TURN_MS = 1000           -- the longest that people wait for a batch job whose turn it is

-- Upper bounds (ms) of the buckets in which upstream calls are counted; a last one has the rest.
local LATENCIES = {50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 120000, 300000}

-- A budget that is closed until a known time, and the error of a job whose deadline is nearer than that.
local CLOSED = {
  rate_limited = {'rate_limited', 'its rate limit keeps it closed'},
  overloaded = {'upstream_unavailable', 'it is overloaded and left alone'},
  quota_exhausted = {'quota_exhausted', 'its quota is used up'},
  day_quota = {'quota_exhausted', "the day's requests_per_day are used up"},
}

-- The state of a budget, and how many of its jobs are in the queues; or those of it that have these names.
local function load_budget(name, names)
  local b, stored, key = {}, {}, 'budget:' .. name
  if names then
    for i, value in ipairs(redis.call('HMGET', key, unpack(names))) do
      value = tonumber(value) or value or nil
      b[names[i]], stored[names[i]] = value, value
    end
    return b, stored
  end
  -- Most fields are not there: asking for each by its name would take longer.
  local found = redis.call('HGETALL', key)
  for i = 1, #found, 2 do
    local value = tonumber(found[i + 1]) or found[i + 1]
    b[found[i]], stored[found[i]] = value, value
  end
  return b, stored
end

-- Write what has changed since `load_budget` returned both.
local function save_budget(name, b, stored)
  local set, gone = {}, {}
  for field, value in pairs(b) do
    if value ~= stored[field] then append(set, field, value) end
  end
  for field in pairs(stored) do
    if b[field] == nil then gone[#gone + 1] = field end
  end
  if #gone > 0 then redis.call('HDEL', 'budget:' .. name, unpack(gone)) end
  if #set > 0 then redis.call('HSET', 'budget:' .. name, unpack(set)) end
end

-- As chat.jobs.queue_name has it.
local function queue_of(provider, lane)
  return lane == 'batch' and 'chat.' .. provider .. '.batch' or 'chat.' .. provider
end

-- What is configured for a provider, and for one pattern of its models; nil before a worker or the keeper said it.
local function settings_of(provider, match)
  local found = redis.call('HMGET', 'settings:' .. provider, 'provider', 'limit:' .. match)
  return found[1] and cjson.decode(found[1]), found[2] and cjson.decode(found[2]) or {}
end

-- How long until a job of `lane` may call (ms, 0 is now), and why not before.
local function opens_in(b, settings, limit, now, lane, cost)
  if b.closed_until and b.closed_until > now then return b.closed_until - now, b.why end
  if limit.rpd then
    local day = math.floor(now / DAY_MS)
    local most = limit.rpd
    -- Some of the day is kept for people, but a batch gets at least one request.
    if lane == 'batch' then most = math.max(1, math.floor(most * (1 - settings.reserve) + 0.0001)) end
    if b.day == day and b.used >= most then return (day + 1) * DAY_MS - now, 'day_quota' end
  end
  return rates_wait(b, limit, now, cost)
end

-- Book a call that starts now.
local function charge(b, limit, now, cost)
  rates_charge(b, limit, now, cost)
  if limit.rpd then
    local day = math.floor(now / DAY_MS)
    b.used = (b.day == day and b.used or 0) + 1
    b.day = day
  end
end

-- Whether the budget lets calls through one by one, so that its jobs have to be parked and not queued.
local function is_paced(b, limit, now)
  return limit.rpm or limit.tpm or limit.rpd or rates_current(b, limit, now) ~= nil
end

local function closed_error(id, provider, why, opens_at)
  local code, words = CLOSED[why][1], CLOSED[why][2]
  local seconds = math.ceil((opens_at - now_ms()) / 1000)
  return error_json(id, code, provider .. ': ' .. words .. ' for ' .. int(seconds) .. ' s, which is past the deadline of the job',
    seconds, code == 'quota_exhausted' and iso(opens_at) or nil)
end

local function take_permit(provider, member, lane, budget, now)
  redis.call('ZADD', 'leases:' .. provider, now, member)
  if redis.call('HSETNX', 'calls:' .. provider, member, lane .. ' ' .. budget) == 1 then
    redis.call('HINCRBY', 'in_use:' .. provider, lane, 1)
    redis.call('HINCRBY', 'in_use:' .. provider, 'budget ' .. budget, 1)
  end
end

-- Returns whether the permit was there to give back, and the time.
local function give_permit(provider, member)
  local there = redis.call('ZREM', 'leases:' .. provider, member)
  local call, now = redis.call('HGET', 'calls:' .. provider, member), now_ms()
  if call then
    local lane, budget = string.match(call, '^(%S+) (.*)$')
    redis.call('HDEL', 'calls:' .. provider, member)
    redis.call('HINCRBY', 'in_use:' .. provider, lane, -1)
    if redis.call('HINCRBY', 'in_use:' .. provider, 'budget ' .. budget, -1) <= 0 then
      redis.call('HDEL', 'in_use:' .. provider, 'budget ' .. budget)
    end
    if lane == 'interactive' then redis.call('HSET', 'lanes:' .. provider, 'active', int(now)) end
  end
  return there == 1, now
end

-- What decides who may have the next permit: those in use, of them batch's, and the interactive jobs that wait; then the
-- batch jobs' turn: grants since the last of them, when people were last there, since when it is batch's turn.
local function look_at_permits(provider)
  local lanes = redis.call('HMGET', 'lanes:' .. provider, 'since', 'active', 'turn')
  return {
    in_use = redis.call('ZCARD', 'leases:' .. provider),
    batch = tonumber(redis.call('HGET', 'in_use:' .. provider, 'batch') or 0),
    waiting = redis.call('ZCARD', 'queued:' .. queue_of(provider, 'interactive')),
    since = tonumber(lanes[1] or 0), active = tonumber(lanes[2] or 0), turn = tonumber(lanes[3]),
  }
end

-- Who may have the next permit: how many are free, how many batch jobs may start, and whether it is batch's turn
-- although somebody waits.
local function permits_of(provider, settings, now, seen)
  local in_use, batch, waiting = seen.in_use, seen.batch, seen.waiting
  local free = settings.permits - in_use
  local most = settings.permits
  if waiting > 0 or in_use > batch or math.abs(now - seen.active) < PEOPLE_MS then
    most = math.floor(most * settings.share + 0.0001)
  elseif most > 1 then
    most = most - 1
  end
  local room = math.max(0, math.min(free - waiting, most - batch))
  local turn = false
  if room == 0 and settings.turn > 0 and seen.since >= settings.turn - 1 then
    -- A trickle, so that no batch job waits for ever: each Nth grant, once the oldest has waited long enough.
    local oldest = redis.call('ZRANGE', 'queued:' .. queue_of(provider, 'batch'), 0, 0)[1]
    local created = oldest and redis.call('HGET', 'job:' .. oldest, 'created')
    turn = created and now - created >= settings.max_wait or false
    if turn and seen.turn and math.abs(now - seen.turn) > TURN_MS then
      -- Nobody took it: people do not wait for a batch job that no worker fetches.
      redis.call('HSET', 'lanes:' .. provider, 'since', 0)
      redis.call('HDEL', 'lanes:' .. provider, 'turn')
      seen.since, seen.turn, turn = 0, nil, false
    end
    if turn and free > 0 then room = 1 end
  end
  return free, room, turn
end

-- Since when (ms) no call of a provider begins, because an operator drains it; nil when they do.
local function drained_since(provider)
  return tonumber(redis.call('GET', 'drained:' .. provider))
end

-- What a worker hears after each of its steps: how many batch jobs may start now; -1 when no job at all may.
local function batch_room(provider, settings, now)
  if drained_since(provider) then return -1 end
  if not settings then return 0 end
  local _, room = permits_of(provider, settings, now, look_at_permits(provider))
  return room
end

-- What `enter_job` is given of a job besides its request; what is nil has no field.
local ENTERED = {'provider', 'queue', 'lane', 'model', 'upstream_model', 'metadata', 'created', 'deadline', 'on_lost',
  'ttl', 'budget', 'match', 'cost', 'rid', 'owner', 'idem', 'watch', 'refused', 'answered', 'unknown'}

-- A job is accepted: all that is counted of it but its state. Returns the fields of its record, for `move` to write.
-- `known`: the budget is listed.
local function enter_job(id, job, now, known)
  local order, bytes = redis.call('HINCRBY', 'acct', 'accepted', 1), #(job.request or '')
  local record, last = {'order', order, 'bytes', bytes}, 4
  for _, field in ipairs(ENTERED) do
    local value = job[field]
    if value then
      record[last + 1], record[last + 2] = field, value
      last = last + 2
    end
  end
  if job.request then redis.call('SET', 'request:' .. id, job.request) end
  redis.call('ZADD', 'deadlines', job.deadline, id)
  redis.call('HINCRBY', 'acct', 'bytes', bytes)
  redis.call('HINCRBY', 'lane:' .. job.queue, 'bytes', bytes)
  if not known then
    redis.call('ZADD', 'budgets:' .. job.provider, now, job.budget)
    redis.call('HSETNX', 'budget:' .. job.budget, 'match', job.match)
  end
  return record, order
end

-- A waiting job takes its place among those that its budget is to let through.
local function line_up(id, provider, budget, match, lane, order)
  redis.call('ZADD', 'parked:' .. budget .. ':' .. lane, order, id)
  redis.call('HSET', 'parked', budget, provider .. ' ' .. match)
end

-- Put a job aside until its budget opens; the keeper brings it back. `fields` as in `move`.
local function park(id, from, job, why, fields)
  local parked = fields or {}
  append(parked, 'waiting', why)
  move(id, job.queue, from, 'waiting', why, parked)
  if from == 'queued' then unqueue(id, job.queue, job.budget, job.lane) end
  line_up(id, job.provider, job.budget, job.match, job.lane, job.order)
  redis.call('HINCRBY', 'acct', 'parks', 1)
end

-- Starts a second of one lane, averaged over half a minute.
local LANE_MS = 30000
local function starts_per_s(queue, now)
  local lane = redis.call('HMGET', 'lane:' .. queue, 'rate', 'at')
  return tonumber(lane[1] or 0) * math.exp(-math.max(0, now - (lane[2] or now)) / LANE_MS)
end
local function count_start(queue, now)
  redis.call('HSET', 'lane:' .. queue, 'rate', string.format('%.6g', starts_per_s(queue, now) + 1000 / LANE_MS), 'at', int(now))
end
