-- Record how an upstream call ended: permit back, ledger, answer, state, and whoever waits is told.
-- ARGV: 1 id, 2 token, 3 provider, 4 worker, 5 succeeded|failed|cancelled, 6 response or error JSON,
--       7 outcome for the ledger, 8 upstream status or '', 9 billed, 10 the record as `start` handed it out
-- Returns {'done', state} | {'late', state}: the ledger only, the job had ended or belongs to a newer attempt
local id, token, provider, kind = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
-- The first write frees memory: only then does a full Redis let the rest of the script through.
redis.call('ZREM', 'leases:' .. provider, id .. ' ' .. token)
local key = 'job:' .. id
local now = now_ms()
local job = redis.call('HMGET', key, 'state', 'token', 'end_token', 'worker')
local state, holder = job[1], job[2]

local function finish(from, outcome)
  close_attempt(id, token, outcome, ARGV[8], ARGV[9], now)
  local response, error = ARGV[6], nil
  if kind ~= 'succeeded' then response, error = nil, ARGV[6] end
  end_job(id, from, kind, response, error, token, now, outcome)
  return {'done', kind}
end

local function ledger_only()
  close_attempt(id, token, 'late', ARGV[8], ARGV[9], now)
  audit(id, 'late', ARGV[7])
  return {'late', state}
end

if not state then  -- Redis has forgotten the job (a rollback): the record is made again from the worker's memory.
  local record = cjson.decode(ARGV[10])
  redis.call('HSET', key, 'provider', record.provider, 'queue', record.queue, 'lane', record.lane, 'model', record.model,
    'upstream_model', record.upstream_model, 'metadata', record.metadata, 'created', record.created,
    'deadline', record.deadline, 'ttl', record.ttl, 'bytes', 0, 'token', token, 'worker', ARGV[4])
  open_attempt(id, record.attempt, ARGV[4], token, record.started)
  for earlier = 1, record.attempt - 1 do
    redis.call('HSET', key, 'a:' .. earlier, cjson.encode({number = earlier, worker = '', token = '', started_at = record.started,
      ended_at = now, outcome = 'forgotten', billed = 'maybe'}))
  end
  redis.call('HINCRBY', 'acct', 'accepted', 1)
  move(id, nil, 'calling', 're-created')
  return finish('calling', ARGV[7])
end

if TERMINAL[state] then
  if job[3] ~= token then return ledger_only() end
  return {'done', state}
end

if state == 'calling' and holder == token then return finish(state, ARGV[7]) end

-- A lost call that came back without an answer changes nothing but the ledger.
if kind ~= 'succeeded' then return ledger_only() end

if state == 'calling' then  -- An answer is here: the newer attempt has nothing left to do.
  redis.call('ZREM', 'leases:' .. provider, id .. ' ' .. holder)
  close_attempt(id, holder, 'superseded', '', 'maybe', now)
  tell_worker(job[4], id, holder)
end
return finish(state, 'late')
