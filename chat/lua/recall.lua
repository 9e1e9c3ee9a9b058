-- What a worker remembers and Redis does not: a power failure or a fail-over may take back the last second or so.

local RECALL_MS = 15000  -- longer than a worker takes that beats every 5 s and waits 3 s for a server that is gone

-- The present life of the server, named by the time (ms) at which somebody first came to it. It is another one after a
-- restart or a fail-over; that this is so is noticed by whichever script asks first. `known` begins with the values that
-- are asked for here, for who has them.
local function life(now, known)
  local info = redis.pcall('INFO', 'server')
  -- A plain search first: a pattern would be tried at each byte of all that stands before.
  local at = type(info) == 'string' and string.find(info, 'run_id:', 1, true)
  local run = at and string.match(info, '^run_id:(%x+)', at) or ''
  known = known or redis.call('MGET', 'chatd:run', 'chatd:life', 'chatd:alive')
  if known[1] == run and known[2] then return known[2] end
  redis.call('MSET', 'chatd:run', run, 'chatd:life', int(now), 'chatd:lived', known[3] or 0)
  return int(now)
end

-- Whether starts have to wait: a worker that lived when Redis ended has not been heard since, and may be in a call that
-- Redis has forgotten, and that would begin twice.
local function is_recalling(provider, now, known)
  local began = life(now, known)
  if math.abs(now - began) >= RECALL_MS then return false end
  local lived = redis.call('GET', 'chatd:lived') or 0
  return redis.call('ZCOUNT', 'workers:' .. provider, int(lived - RECALL_MS), '(' .. began) > 0
end

local function recreate(id, record, request, now)
  record.request = request
  local fields = enter_job(id, record, now)
  if record.idem then
    local hash, body = string.match(record.idem, '^(%S+) (%S+)$')
    local ms = record.deadline - record.created + record.ttl * 1000
    redis.call('SET', 'idem:' .. hash, id .. ' ' .. body, 'NX', 'PX', int(ms))
  end
  redis.call('HINCRBY', 'acct', 'recreated', 1)
  redis.call('HSET', 'job:' .. id, unpack(fields))
end

-- Enter a call in the ledger that is not there. The job is its worker's again, unless it is over or in a newer call: then
-- the attempt is entered as one that was given up, whose answer counts as any late one.
-- `record` is what `start` handed out; without the request a job that has to be made again cannot be called again.
-- Returns 'known', or what was done: 'recreated' | 'taken' | 'given up'; or 'removed': its retention has ended
local function recall(id, token, worker, record, request, now)
  local key = 'job:' .. id
  local job = redis.call('HMGET', key, 'state', 'attempts', 'token')
  local state, attempts = job[1], tonumber(job[2] or 0)
  if state and attempt_of(id, token) then return 'known' end
  if not state then
    if redis.call('ZSCORE', 'removed', id) then return 'removed' end
    recreate(id, record, request, now)
  end
  redis.call('HINCRBY', 'acct', 'recalled', 1)
  if state == 'calling' and record.attempt > attempts then
    -- What Redis has for the call that runs was over when this one began.
    give_permit(record.provider, id .. ' ' .. job[3])
    close_attempt(id, attempt_of(id, job[3]), 'forgotten', '', 'maybe', now)
  elseif state and not WAITS[state] then
    write_attempt(id, {number = attempts + 1, worker = worker, token = token, started_at = record.started, ended_at = now,
      outcome = 'lost', billed = 'maybe'})
    audit(id, 'recalled', 'given up, the job is ' .. state)
    return 'given up'
  end
  for number = attempts + 1, record.attempt - 1 do
    write_attempt(id, {number = number, worker = '', token = '', started_at = record.started, ended_at = now,
      outcome = 'forgotten', billed = 'maybe'})
  end
  unqueue(id, record.queue, record.budget, record.lane)
  redis.call('ZREM', 'parked:' .. record.budget .. ':' .. record.lane, id)
  redis.call('ZREM', 'due', id)
  redis.call('HDEL', key, 'waiting')
  local fields = open_attempt(math.max(attempts + 1, record.attempt), worker, token, record.started)
  move(id, record.queue, state or nil, 'calling', 'recalled ' .. worker, fields)
  return state and 'taken' or 'recreated'
end
