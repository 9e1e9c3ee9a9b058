-- Shared by every script: it is put before each of them when they are loaded.
--
-- Keys (one Redis database, no cluster):
--   job:<id>                 hash   the record. While none of its values has more than 64 bytes, Redis keeps it in one piece.
--                                   With `delivered` a piece of its answer has gone out: no other attempt may follow
--   request:<id>             string what a job that is not over asks: in the record it would be such a value, where the
--                                   version before has it
--   stream:<id>              stream what has come of an answer that comes piece by piece: entry <attempt>-<number> has the
--                                   piece as `d`; it goes some minutes after the last of them
--   queued:<queue>           zset   job -> sequence number of its newest wake-up
--   seq:<queue>, mark:<queue>       last number given out, highest number started
--   envelope:<queue>         string Celery message with @JOB@ and @TAG@ to fill in
--   lane:<queue>             hash   jobs and bytes that wait, and how many start a second
--   leases:<provider>        zset   "<job> <token>" -> Redis time (ms) of the last renewal; one permit each
--   calls:<provider>         hash   "<job> <token>" -> "<lane> <budget>" of the same calls
--   in_use:<provider>        hash   the same counted by lane and by "budget <budget>"
--   lanes:<provider>         hash   who had the last permits: what the shares are decided on
--   workers:<provider>       zset   worker name -> Redis time (ms) it was last seen
--   settings:<provider>      hash   its configuration: provider, limit:<match>
--   drained:<provider>       string Redis time (ms) since which no call of it begins; only `drain` writes and removes it
--   stats:<provider>         hash   calls, refusals, tokens, latencies since the beginning
--   budget:<budget>          hash   its rate, cool-down and day, and how many of its jobs are in the queues
--   budgets:<provider>       zset   budget -> Redis time (ms) of its last call
--   parked                   hash   budget -> "<provider> <match>", for those that may have parked jobs
--   parked:<budget>:<lane>   zset   job -> its place in the order of admission
--   due                      zset   job -> when its own back-off ends (ms)
--   jobs                     zset   every job that has a record; all scores are 0, so that the ids are in order, by time
--   deadlines                zset   live job -> deadline (ms)
--   terminal                 zset   "<job> <state>" -> when its record goes (ms)
--   idem:<hash>              string "<job> <body hash>"
--   acct                     hash   accepted, one count per state, retired, and the bytes of live requests
--   client:<name>:due        string Redis time (ms) at which its next call would be due, for one with a rate
--   client:<name>:calls      zset   call -> when it counts no more (ms), for one with a bound on calls at the same time
--   audit                    stream the recent past
--   celery-task-meta-<id>    string the answer, as Celery's result backend has it
--   chatd:memory             string there while Redis is nearly full
--   chatd:life               string when (ms) somebody first came to this life of the server; chatd:run is its run_id
--   chatd:alive              string when (ms) a worker was last heard; chatd:lived the same in the life before
--   removed                  zset   job -> when its record was removed (ms), for a minute

local TERMINAL = {succeeded = true, failed = true, cancelled = true, expired = true}
local WAITS = {queued = true, waiting = true}
local REPLY_LIMIT = 65536  -- a larger answer is fetched by its reader: a slow subscriber must not fill Redis' buffers

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function int(n)
  return string.format('%d', math.floor(n + 0.5))  -- Half the time of %.0f.
end

-- Begin with a write that frees memory: only then does a full Redis let the rest of a script through. What ends jobs
-- or keeps calls alive must run even then. (`finish` begins with its lease, `retire` and `settle` with the records they
-- remove.)
local function let_through()
  redis.call('DEL', 'chatd:nothing')
end

-- The recent past is cut when a job is accepted: each time would cost a quarter more.
local function audit(id, event, detail)
  redis.call('XADD', 'audit', '*', 'job', id, 'event', event, 'detail', detail or '')
end

local function append(list, name, value)
  list[#list + 1] = name
  list[#list + 1] = value
end

-- Change the state, and the counters with it: accepted = sum of the states + retired at every moment. A job that comes
-- from no state is new, and is listed from now on. `fields` are further ones of the record, each followed by its value.
local function move(id, queue, from, to, detail, fields)
  redis.call('HSET', 'job:' .. id, 'state', to, unpack(fields or {}))
  if from then redis.call('HINCRBY', 'acct', from, -1) else redis.call('ZADD', 'jobs', 0, id) end
  redis.call('HINCRBY', 'acct', to, 1)
  local change = (WAITS[to] and 1 or 0) - (from and WAITS[from] and 1 or 0)
  if change ~= 0 then redis.call('HINCRBY', 'lane:' .. queue, 'jobs', change) end
  audit(id, to, detail)
end

-- The message that wakes a worker; nil while no worker or keeper has said how it looks. Searching for one sign is many times
-- as fast as gsub, which tries its pattern at each byte.
local function wake_up(id, queue, number)
  local envelope = redis.call('GET', 'envelope:' .. queue)
  if not envelope then return nil end
  local values = {['@JOB@'] = id, ['@TAG@'] = id .. '.' .. number}
  local parts, after, at = {}, 1, string.find(envelope, '@', 1, true)
  while at do
    local value = values[string.sub(envelope, at, at + 4)]
    if value then
      parts[#parts + 1] = string.sub(envelope, after, at - 1)
      parts[#parts + 1] = value
      after = at + 5
    end
    at = string.find(envelope, '@', value and after or at + 1, true)
  end
  parts[#parts + 1] = string.sub(envelope, after)
  return table.concat(parts)
end

-- Send a wake-up. Without an envelope (no worker or keeper has registered one yet) the keeper sends it later.
-- One that goes to the front is served next; its start says nothing about those that were sent before it, so that it
-- must not raise the mark: the record has 0 for its number. `release` sends nobody past it before it has been taken, nor
-- past one that is `kept`, the same at its usual place. `fields` are those of a new job that `move` is to write: the number
-- joins them.
local function push(id, queue, budget, lane, front, kept, fields)
  local number = redis.call('INCR', 'seq:' .. queue)
  local key = 'budget:' .. budget
  if redis.call('ZADD', 'queued:' .. queue, number, id) == 1 then
    redis.call('HINCRBY', key, lane, 1)
    if front or kept then redis.call('HINCRBY', key, 'front ' .. lane, 1) end
  elseif redis.call('HGET', 'job:' .. id, 'seq') == '0' then  -- Sent again, at the end.
    redis.call('HINCRBY', key, 'front ' .. lane, -1)
  end
  local seq = (front or kept) and 0 or number
  if fields then append(fields, 'seq', seq) else redis.call('HSET', 'job:' .. id, 'seq', seq) end
  local message = wake_up(id, queue, number)
  if message then redis.call(front and 'RPUSH' or 'LPUSH', queue, message) end
end

-- A job is no longer in its queue, whatever becomes of its wake-up. Returns whether it was. `seq` is the number in its
-- record, for who knows it.
local function unqueue(id, queue, budget, lane, seq)
  if redis.call('ZREM', 'queued:' .. queue, id) == 0 then return false end
  redis.call('HINCRBY', 'budget:' .. budget, lane, -1)
  if (seq or redis.call('HGET', 'job:' .. id, 'seq')) == '0' then
    redis.call('HINCRBY', 'budget:' .. budget, 'front ' .. lane, -1)
  end
  return true
end

-- Days since 1970 to a date: the civil calendar in integers, for the one place where Celery wants text.
local function iso(ms)
  local days = math.floor(ms / 86400000)
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  local rest = ms - days * 86400000
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06d+00:00', year, month, doy - math.floor((153 * mp + 2) / 5) + 1,
    math.floor(rest / 3600000), math.floor(rest / 60000) % 60, math.floor(rest / 1000) % 60, rest % 1000 * 1000)
end

-- End a job: the answer becomes Celery's result, whoever waits is told, the record stays until its retention ends.
-- response and error are JSON text; exactly one of them is nil. `fields` as in `move`. `known` begins with the values that
-- are asked for here, for who has them.
local function end_job(id, from, to, response, error, token, now, detail, fields, known)
  local key = 'job:' .. id
  local job = known or redis.call('HMGET', key, 'queue', 'bytes', 'watch', 'ttl', 'budget', 'lane', 'seq')
  local ended = fields or {}
  append(ended, 'ended', int(now))
  append(ended, 'end_token', token)
  append(ended, 'bytes', '0')
  move(id, job[1], from, to, detail, ended)
  if from == 'queued' then
    unqueue(id, job[1], job[5], job[6], job[7])
  elseif from == 'waiting' then
    redis.call('ZREM', 'parked:' .. job[5] .. ':' .. job[6], id)
    redis.call('ZREM', 'due', id)
  end
  redis.call('ZREM', 'deadlines', id)
  local less = 0 - tonumber(job[2])  -- Of nothing, a minus sign makes -0, which Redis (not Valkey) takes for no number.
  redis.call('HINCRBY', 'acct', 'bytes', less)
  redis.call('HINCRBY', 'lane:' .. job[1], 'bytes', less)
  redis.call('HDEL', key, 'watch', 'waiting')
  if redis.call('DEL', 'request:' .. id) == 0 then redis.call('HDEL', key, 'request') end
  local ttl = tonumber(job[4])
  redis.call('EXPIRE', key, ttl * 2)
  redis.call('ZADD', 'terminal', now + ttl * 1000, id .. ' ' .. to)
  local meta = '{"status":"SUCCESS","result":{"state":"' .. to .. '","response":' .. (response or 'null') .. ',"error":' .. (error or 'null')
    .. '},"traceback":null,"children":[],"date_done":"' .. iso(now) .. '","task_id":"' .. id .. '"}'
  redis.call('SET', 'celery-task-meta-' .. id, meta, 'EX', ttl * 2)
  redis.call('PUBLISH', 'celery-task-meta-' .. id, meta)
  local reply = #meta <= REPLY_LIMIT and meta or '{"task_id":"' .. id .. '"}'
  for channel in string.gmatch(job[3] or '', '%S+') do redis.call('PUBLISH', channel, reply) end
  return meta
end

-- The record of an ended job goes, and is counted as retired.
local function remove(id, state)
  local idem = redis.call('HGET', 'job:' .. id, 'idem')
  if idem then
    local key = 'idem:' .. string.match(idem, '^%S+')
    -- The same key may have come again since, if this record was forgotten in between.
    if string.match(redis.call('GET', key) or '', '^%S+') == id then redis.call('DEL', key) end
  end
  redis.call('DEL', 'job:' .. id, 'request:' .. id, 'celery-task-meta-' .. id, 'stream:' .. id)
  redis.call('ZREM', 'jobs', id)
  redis.call('ZREM', 'terminal', id .. ' ' .. state)
  redis.call('HINCRBY', 'acct', state, -1)
  redis.call('HINCRBY', 'acct', 'retired', 1)
  -- Whoever remembers the job from before a restart is not to make it again.
  redis.call('ZADD', 'removed', int(now_ms()), id)
end

local function error_json(id, code, message, retry_after_s, resets_at)
  local job = redis.call('HMGET', 'job:' .. id, 'provider', 'upstream_model', 'answered', 'unknown')
  -- Earlier calls of the job may have been billed, whatever ends it now.
  local called = tonumber(job[3] or 0) + tonumber(job[4] or 0) > 0
  return cjson.encode({code = code, message = message, job_id = id, provider = job[1], upstream_model = job[2],
    retry_after_s = retry_after_s, resets_at = resets_at, billed = called and 'maybe' or nil})
end

local function write_attempt(id, attempt)
  redis.call('HSET', 'job:' .. id, 'attempts', attempt.number, 'a:' .. attempt.number, cjson.encode(attempt))
end

-- The fields that open an attempt and make the job its worker's, as `move` takes them.
local function open_attempt(number, worker, token, now)
  return {'token', token, 'worker', worker, 'attempts', number,
    'a:' .. number, cjson.encode({number = number, worker = worker, token = token, started_at = now})}
end

-- The attempt of a token in the ledger of a job, the newest first; nil when there is none. How many there are, and the
-- first of them, from who knows it.
local function attempt_of(id, token, attempts, first)
  local key = 'job:' .. id
  if not attempts then
    local known = redis.call('HMGET', key, 'attempts', 'a:1')  -- Most jobs have one.
    attempts, first = known[1], known[2]
  end
  for number = tonumber(attempts or 0), 1, -1 do
    local attempt = cjson.decode(number == 1 and first or redis.call('HGET', key, 'a:' .. number))
    if attempt.token == token then return attempt end
  end
end

-- Close one attempt of the ledger, if there is one. A second time counts only for one that was given up.
-- Returns whether it changed anything. What `move` is to write joins `fields`, if there are some.
local function close_attempt(id, attempt, outcome, status, billed, now, fields)
  if not attempt then return false end
  local superseded = attempt.outcome == 'superseded'
  local open = not attempt.ended_at or attempt.outcome == 'lost' or attempt.outcome == 'forgotten'
  if not open and (not superseded or attempt.told) then return false end
  -- Given up, but alive: its permit was somebody else's meanwhile.
  if attempt.outcome == 'lost' then redis.call('HINCRBY', 'acct', 'permits_overrun', 1) end
  attempt.ended_at = now
  attempt.told = superseded or nil
  if not superseded then attempt.outcome = outcome end
  attempt.upstream_status = tonumber(status)
  attempt.billed = billed
  local field, text = 'a:' .. attempt.number, cjson.encode(attempt)
  if fields then append(fields, field, text) else redis.call('HSET', 'job:' .. id, field, text) end
  return true
end

-- Tell the worker that holds a call to close it; its heartbeat asks as well, should this be lost.
local function tell_worker(worker, id, token)
  redis.call('PUBLISH', 'chatd:stop:' .. worker, id .. ' ' .. token)
end
