-- Hold what stands in one place against what stands in another. Nothing is changed.
-- ARGV: 1 'totals', then all providers: the counters against each other and against how much stands where
--       | 'jobs', then ids: what each record asks for
--       | 'entries', a key, then members of it: whether the job of each says that it stands there
--       | 'keys', then names of records, requests and answers: whether the one knows of the other
-- Returns {suspects, more}; a suspect is {rule, key, member, state, token, what was found}.
--         more, of totals: {field of acct, value, ...}, {queue, queued, below the mark, wake-ups in the list,
--         age (s) of the first, ...}
--         of jobs: {state, how many, ...}, {job, number, outcome, worker, started, ended, ...} of attempts billed maybe,
--         how many attempts were lost
local EXACT = 1000           -- up to so many live jobs are counted one by one, in one call
local LATE_MS = 15000        -- three heartbeats: the keeper waits longer, so that this is worth a note only
local DEAD_MS = 120000       -- by then the keeper would have taken the lease several times over
local LIVE = {queued = true, waiting = true, calling = true}

local now = now_ms()
local suspects = {}
local function suspect(rule, key, member, job, found)
  suspects[#suspects + 1] = {rule, key, member, job.state or '', job.token or '', found or ''}
end

local FIELDS = {'state', 'token', 'provider', 'queue', 'lane', 'budget', 'attempts', 'worker', 'seq', 'bytes'}
local function job_of(id)
  local job = {}
  for i, value in ipairs(redis.call('HMGET', 'job:' .. id, unpack(FIELDS))) do job[FIELDS[i]] = value or nil end
  return job
end

-- A record that its retention outlived is only late in being removed: Redis let it go while no keeper was there.
local function is_overdue(id)
  for state in pairs(TERMINAL) do
    local ends = redis.call('ZSCORE', 'terminal', id .. ' ' .. state)
    if ends and tonumber(ends) <= now then return true end
  end
  return false
end

local counts, maybe, lost = {}, {}, 0

local function ledger(id, key, job)
  local held = false
  local count = tonumber(job.attempts or 0)
  if not count then suspect('attempt_missing', key, id, job, 'attempts ' .. job.attempts) end
  for number = 1, count or 0 do
    local text = redis.call('HGET', key, 'a:' .. number)
    local is_json, attempt = pcall(cjson.decode, text or '')
    if not is_json or type(attempt) ~= 'table' or not tonumber(attempt.started_at) then
      suspect('attempt_missing', key, id, job, 'attempt ' .. number)
    else
      local mine = job.state == 'calling' and attempt.token == job.token
      if not attempt.ended_at and mine then held = true end
      if not attempt.ended_at and not mine then suspect('attempt_open', key, id, job, 'attempt ' .. number) end
      if attempt.outcome == 'lost' then lost = lost + 1 end
      if attempt.billed == 'maybe' then
        for _, value in ipairs({id, number, attempt.outcome or '', attempt.worker or '', int(attempt.started_at),
          attempt.ended_at and int(attempt.ended_at) or ''}) do maybe[#maybe + 1] = value end
      end
    end
  end
  if job.state == 'calling' and not held then suspect('call_without_attempt', key, id, job) end
end

local function look_at_job(id)
  local key, job = 'job:' .. id, job_of(id)
  local state = job.state
  if not state then
    if redis.call('ZSCORE', 'jobs', id) and not is_overdue(id) then suspect('record_missing', 'jobs', id, job) end
    return
  end
  counts[state] = (counts[state] or 0) + 1
  if not LIVE[state] and not TERMINAL[state] then return suspect('state_unknown', key, id, job, state) end
  for _, field in ipairs({'provider', 'queue', 'lane', 'budget', state == 'calling' and 'token' or 'queue'}) do
    if not job[field] then return suspect('record_incomplete', key, id, job, 'without ' .. field) end
  end
  ledger(id, key, job)
  if TERMINAL[state] then
    if redis.call('EXISTS', 'celery-task-meta-' .. id) == 0 then suspect('answer_missing', key, id, job) end
    if not redis.call('ZSCORE', 'terminal', id .. ' ' .. state) then suspect('never_removed', key, id, job) end
    return
  end
  if redis.call('EXISTS', 'request:' .. id) + redis.call('HEXISTS', key, 'request') == 0 then suspect('request_missing', key, id, job) end
  if not redis.call('ZSCORE', 'deadlines', id) then suspect('no_deadline', key, id, job) end
  if state == 'queued' then
    if not redis.call('ZSCORE', 'queued:' .. job.queue, id) then
      suspect('queued_nowhere', key, id, job, 'not in queued:' .. job.queue)
    end
  elseif state == 'waiting' then
    local parked = 'parked:' .. job.budget .. ':' .. job.lane
    if redis.call('ZSCORE', parked, id) then
      if redis.call('HEXISTS', 'parked', job.budget) == 0 then suspect('parking_unknown', key, id, job, 'in ' .. parked) end
    elseif not redis.call('ZSCORE', 'due', id) then
      suspect('waiting_nowhere', key, id, job, 'neither in ' .. parked .. ' nor in due')
    end
  else
    local member = id .. ' ' .. job.token
    if not redis.call('ZSCORE', 'leases:' .. job.provider, member) then
      suspect('call_without_lease', key, id, job, 'worker ' .. (job.worker or '?'))
    end
    if redis.call('HEXISTS', 'calls:' .. job.provider, member) == 0 then
      suspect('call_without_permit', key, id, job, 'worker ' .. (job.worker or '?'))
    end
  end
end

local function look_at_entry(key, member)
  local kind, rest = string.match(key, '^([^:]+):?(.*)$')
  -- It may have left since its name was read.
  if not redis.call(kind == 'calls' and 'HGET' or 'ZSCORE', key, member) then return end
  local id, more = string.match(member, '^(%S+) ?(%S*)$')
  local job = id and job_of(id) or {}
  local state = job.state
  local right
  if kind == 'queued' then right = state == 'queued' and job.queue == rest
  elseif kind == 'parked' then right = state == 'waiting' and (job.budget or '') .. ':' .. (job.lane or '') == rest
  elseif kind == 'due' then right = state == 'waiting'
  elseif kind == 'deadlines' then right = LIVE[state or ''] == true
  elseif kind == 'terminal' then right = TERMINAL[state or ''] and state == more
  else right = state == 'calling' and job.token == more and job.provider == rest end
  if not right then
    local is_late = kind == 'terminal' and not state and is_overdue(id)
    return suspect(is_late and 'overdue_removal' or 'stray_entry', key, member, job, state and 'the job is ' .. state or 'no record')
  end
  if kind == 'leases' then
    local age = now - (tonumber(redis.call('ZSCORE', key, member) or now))
    if age > LATE_MS then
      suspect(age > DEAD_MS and 'dead_lease' or 'late_lease', key, member, job,
        'worker ' .. (job.worker or '?') .. ' renewed it last ' .. int(age / 1000) .. ' s ago')
    end
  end
end

local function look_at_key(key)
  local id = string.match(key, '^job:(.*)$')
  if id then
    if redis.call('EXISTS', key) == 1 and not redis.call('ZSCORE', 'jobs', id) then
      suspect('record_unlisted', key, id, job_of(id))
    end
    return
  end
  id = string.match(key, '^request:(.*)$')
  if id then
    local job = job_of(id)
    if redis.call('EXISTS', key) == 1 and not LIVE[job.state or ''] then
      suspect('request_left', key, id, job, job.state and 'the job is ' .. job.state or 'no record')
    end
    return
  end
  id = string.match(key, '^celery%-task%-meta%-(.*)$')
  local state = redis.call('HGET', 'job:' .. id, 'state')
  if redis.call('EXISTS', key) == 0 then return end
  if not state then
    suspect('answer_without_record', key, id, {})
  elseif not TERMINAL[state] then
    suspect('answer_too_early', key, id, job_of(id), 'the job is ' .. state)
  end
end

local function flat(numbers)
  local list = {}
  for name, number in pairs(numbers) do
    list[#list + 1] = name
    list[#list + 1] = number
  end
  return list
end

local function hash_of(key)
  local found, hash = redis.call('HGETALL', key), {}
  for i = 1, #found, 2 do hash[found[i]] = found[i + 1] end
  return hash
end

local function equal(rule, key, field, counted, found)
  if counted ~= found then suspect(rule, key, field, {}, 'counted ' .. int(counted) .. ', found ' .. int(found)) end
end

local function look_at_totals(providers)
  local acct = {}
  for name, value in pairs(hash_of('acct')) do acct[name] = tonumber(value) or 0 end
  local function sum(...)
    local total = 0
    for _, name in ipairs({...}) do total = total + (acct[name] or 0) end
    return total
  end
  for name, value in pairs(acct) do
    if value < 0 then suspect('negative', 'acct', name, {}, int(value)) end
  end
  local live = sum('queued', 'waiting', 'calling')
  local over = sum('succeeded', 'failed', 'cancelled', 'expired')
  equal('equation', 'acct', 'accepted', sum('accepted'), live + over + sum('retired'))
  equal('states', 'jobs', '', live + over, redis.call('ZCARD', 'jobs'))
  equal('states', 'deadlines', '', live, redis.call('ZCARD', 'deadlines'))
  equal('states', 'terminal', '', over, redis.call('ZCARD', 'terminal'))

  local exact = redis.call('ZCARD', 'deadlines') <= EXACT
  local seen = {}  -- What the live jobs make: "<key> <field>" -> how much.
  local function see(key, field, amount) seen[key .. ' ' .. field] = (seen[key .. ' ' .. field] or 0) + amount end
  if exact then
    for _, id in ipairs(redis.call('ZRANGE', 'deadlines', 0, -1)) do
      local job = job_of(id)
      if job.queue and job.budget and job.lane then
        see('lane:' .. job.queue, 'bytes', tonumber(job.bytes or 0) or 0)
        if WAITS[job.state] then see('lane:' .. job.queue, 'jobs', 1) end
        if job.state == 'queued' then
          see('budget:' .. job.budget, job.lane, 1)
          if job.seq == '0' then see('budget:' .. job.budget, 'front ' .. job.lane, 1) end
        end
      end
    end
  end
  local function held(rule, key, field)
    local counted = tonumber(redis.call('HGET', key, field) or 0) or 0
    if exact then equal(rule, key, field, counted, seen[key .. ' ' .. field] or 0) end
    if counted < 0 then suspect('negative', key, field, {}, int(counted)) end
    return counted
  end

  local budgets = {}
  local parked = hash_of('parked')
  for budget, owner in pairs(parked) do budgets[budget] = string.match(owner, '^%S+') end
  local queued, waiting, leases, jobs, bytes, wake_ups = 0, redis.call('ZCARD', 'due'), 0, 0, 0, {}
  for _, provider in ipairs(providers) do
    for _, budget in ipairs(redis.call('ZRANGE', 'budgets:' .. provider, 0, -1)) do budgets[budget] = provider end
  end
  for _, provider in ipairs(providers) do
    local key = 'in_use:' .. provider
    local made, calls = {}, hash_of('calls:' .. provider)
    local running = redis.call('ZCARD', 'leases:' .. provider)
    leases = leases + running
    equal('permits', 'calls:' .. provider, '', redis.call('HLEN', 'calls:' .. provider), running)
    for _, call in pairs(calls) do
      local lane, budget = string.match(call, '^(%S+) (.*)$')
      lane, budget = lane or call, 'budget ' .. (budget or '')
      made[lane] = (made[lane] or 0) + 1
      made[budget] = (made[budget] or 0) + 1
    end
    local counted = hash_of(key)
    for field in pairs(made) do counted[field] = counted[field] or 0 end
    for field, value in pairs(counted) do equal('permits', key, field, tonumber(value) or 0, made[field] or 0) end
    for _, lane in ipairs({'interactive', 'batch'}) do
      local queue = queue_of(provider, lane)
      local depth, in_budgets = redis.call('ZCARD', 'queued:' .. queue), 0
      for budget, owner in pairs(budgets) do
        if owner == provider then
          waiting = waiting + redis.call('ZCARD', 'parked:' .. budget .. ':' .. lane)
          in_budgets = in_budgets + held('budget', 'budget:' .. budget, lane)
          held('budget', 'budget:' .. budget, 'front ' .. lane)
        end
      end
      equal('budgets', 'queued:' .. queue, '', in_budgets, depth)
      queued = queued + depth
      jobs = jobs + held('lane', 'lane:' .. queue, 'jobs')
      bytes = bytes + held('lane', 'lane:' .. queue, 'bytes')
      local mark = redis.call('GET', 'mark:' .. queue)
      wake_ups[#wake_ups + 1] = queue
      wake_ups[#wake_ups + 1] = depth
      wake_ups[#wake_ups + 1] = mark and redis.call('ZCOUNT', 'queued:' .. queue, '-inf', '(' .. mark) or 0
      wake_ups[#wake_ups + 1] = redis.call('LLEN', queue)
      local oldest = redis.call('ZRANGE', 'queued:' .. queue, 0, 0)[1]
      local created = oldest and tonumber(redis.call('HGET', 'job:' .. oldest, 'created') or now) or now
      wake_ups[#wake_ups + 1] = math.max(0, math.floor((now - created) / 1000))
    end
  end
  equal('states', 'queued:*', '', sum('queued'), queued)
  equal('states', 'parked:* and due', '', sum('waiting'), waiting)
  equal('states', 'leases:*', '', sum('calling'), leases)
  equal('lanes', 'lane:*', 'jobs', jobs, sum('queued', 'waiting'))
  equal('lanes', 'lane:*', 'bytes', bytes, sum('bytes'))
  return {suspects, flat(acct), wake_ups}
end

local mode = ARGV[1]
if mode == 'totals' then return look_at_totals({unpack(ARGV, 2)}) end
for i = mode == 'entries' and 3 or 2, #ARGV do
  if mode == 'jobs' then look_at_job(ARGV[i])
  elseif mode == 'entries' then look_at_entry(ARGV[2], ARGV[i])
  else look_at_key(ARGV[i]) end
end
return {suspects, flat(counts), maybe, lost}
