-- Record how an upstream call ended: permit back, ledger, what the budget learns, answer, state, whoever waits is told.
-- ARGV: 1 id, 2 token, 3 provider, 4 worker, 5 succeeded|failed|cancelled, 6 response or error JSON,
--       7 outcome for the ledger, 8 upstream status or '', 9 billed, 10 the record as `start` handed it out,
--       11 signal for the budget: accepted|refused|overloaded|quota or '', 12 when the upstream wants to be asked again (ms
--       from now) or '', 13 a number from 0 to 1 by chance, 14 and 15 input and output tokens or '',
--       16 back-off before another attempt (ms), or '' when there is to be none, 17 its reason,
--       18 what the attempt counts as: refused|answered|unknown or ''
-- Returns {'done', state, room} | {'waiting', reason, room} another attempt comes
--       | {'late', state, room} the ledger only: the job had ended or belongs to a newer attempt; state is `removed` when
--         its record has been, since its retention has ended
local id, token, provider, kind = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local key, member = 'job:' .. id, ARGV[1] .. ' ' .. ARGV[2]
-- The first write frees memory: only then does a full Redis let the rest of the script through.
local held, now = give_permit(provider, member)
-- First what `end_job` wants to know.
local FIELDS = {'queue', 'bytes', 'watch', 'ttl', 'budget', 'lane', 'seq', 'state', 'token', 'end_token', 'worker', 'cancel',
  'match', 'cost', 'attempts', 'a:1', ARGV[18], 'delivered'}
local job = redis.call('HMGET', key, unpack(FIELDS))
-- Redis may have forgotten this call, or all of the job; only then, and before another attempt, the record is needed.
local became, record = 'known', nil
if not job[8] or job[9] ~= token and job[10] ~= token then
  record = cjson.decode(ARGV[10])
  record.budget, record.match = record.budget or provider .. ':*', record.match or '*'
  became = recall(id, token, ARGV[4], record, nil, now)
  job = redis.call('HMGET', key, unpack(FIELDS))
end
local known = job[5] and {budget = job[5], match = job[13], cost = job[14]} or record
local budget, match = known.budget, known.match
local state, holder = job[8], job[9]
local attempt = state and attempt_of(id, token, job[15], job[16])
local settings, limit = settings_of(provider, match)

local function reply(what, detail)
  return {what, detail, batch_room(provider, settings, now)}
end

-- What the budget and the statistics learn, once per call: a repetition finds no permit to give back.
-- An answer says nothing of rates.
local b, stored = load_budget(budget, ARGV[11] == 'accepted' and not limit.tpm and RATES_ACCEPTED or nil)
if held then
  local stats, signal = 'stats:' .. provider, ARGV[11]
  local started = attempt and attempt.started_at or (record or cjson.decode(ARGV[10])).started
  local retry_ms, chance = tonumber(ARGV[12]), tonumber(ARGV[13])
  local closed = b.closed_until
  if signal == 'accepted' then
    rates_accepted(b, limit, now, started)
  elseif signal == 'refused' then
    rates_refused(b, limit, now, started, retry_ms, chance)
  elseif signal == 'overloaded' then
    rates_overloaded(b, now, started, retry_ms, chance)
  elseif signal == 'quota' then
    rates_quota(b, now, retry_ms and now + retry_ms or nil, chance)
  end
  local tokens, cost = (tonumber(ARGV[14]) or 0) + (tonumber(ARGV[15]) or 0), tonumber(known.cost)
  local ran = signal ~= 'refused' and signal ~= 'quota'
  -- Of a call that broke off nobody says how large its question was: it took what was estimated, or more.
  if tokens > 0 and kind ~= 'succeeded' then tokens = math.max(tokens, cost or 0) end
  if tokens > 0 or not ran then rates_true_up(b, limit, cost, tokens) end
  save_budget(budget, b, stored)
  if b.closed_until ~= closed and (not closed or closed <= now) then
    redis.call('HINCRBY', stats, 'cool_downs', 1)
    audit(id, 'cool-down', budget .. ' ' .. tostring(b.why) .. ' ' .. int(b.closed_until - now) .. ' ms')
  end
  local bucket = '+Inf'
  for _, most in ipairs(LATENCIES) do
    if now - started <= most then
      bucket = most
      break
    end
  end
  local names = {'calls', kind, 'input_tokens', 'output_tokens', 'ms', 'le ' .. bucket}
  local more = {1, 1, tonumber(ARGV[14]) or 0, tonumber(ARGV[15]) or 0, math.max(0, now - started), 1}
  if signal ~= '' and signal ~= 'accepted' then
    names[7], more[7] = signal, 1
  end
  local counts, sums = redis.call('HMGET', stats, unpack(names)), {}
  for i, name in ipairs(names) do append(sums, name, int((counts[i] or 0) + more[i])) end
  redis.call('HSET', stats, unpack(sums))
end

-- What the attempt counts as joins the record with whatever state comes next.
local fields = {}

local function finish(from, outcome)
  close_attempt(id, attempt, outcome, ARGV[8], ARGV[9], now, fields)
  local response, error = ARGV[6], nil
  if kind ~= 'succeeded' then response, error = nil, ARGV[6] end
  end_job(id, from, kind, response, error, token, now, outcome, fields, job)
  return reply('done', kind)
end

local function ledger_only()
  -- What Redis had forgotten of the end of this attempt was not late.
  local outcome = attempt and attempt.outcome == 'forgotten' and ARGV[7] or 'late'
  if close_attempt(id, attempt, outcome, ARGV[8], ARGV[9], now) then
    audit(id, outcome, ARGV[7])
  elseif ARGV[16] ~= '' and holder == token and not TERMINAL[state] then
    return reply('waiting', ARGV[17])  -- The end of this attempt was heard before.
  end
  return reply('late', state)
end

-- Another attempt, if it can begin before the deadline; else the job ends with the error that it has.
local function again()
  local at = now + tonumber(ARGV[16])
  record = record or cjson.decode(ARGV[10])
  if b.closed_until and CLOSED[b.why] then at = math.max(at, b.closed_until) end
  if at >= tonumber(record.deadline) then return finish('calling', ARGV[7]) end
  close_attempt(id, attempt, ARGV[7], ARGV[8], ARGV[9], now, fields)
  append(fields, 'waiting', ARGV[17])
  move(id, record.queue, 'calling', 'waiting', ARGV[17], fields)
  if tonumber(ARGV[16]) > 0 then
    redis.call('ZADD', 'due', int(now + tonumber(ARGV[16])), id)
  else
    line_up(id, provider, budget, match, record.lane, record.order)
    redis.call('HINCRBY', 'acct', 'parks', 1)
  end
  return reply('waiting', ARGV[17])
end

if became == 'removed' then return reply('late', became) end

if TERMINAL[state] then
  if job[10] ~= token then return ledger_only() end
  return reply('done', state)
end

if state == 'calling' and holder == token then
  if ARGV[18] ~= '' then append(fields, ARGV[18], int((job[17] or 0) + 1)) end
  -- Without its request, which the worker does not hand back, a job cannot be called again; nor is one whose answer
  -- somebody has seen the beginning of.
  if ARGV[16] ~= '' and not job[12] and not job[18] and became ~= 'recreated' then return again() end
  return finish(state, ARGV[7])
end

-- A call that was given up and came back without an answer changes nothing but the ledger; a repetition of what led
-- to another attempt not even that. Nor does an answer while that of the newer attempt is being read.
if kind ~= 'succeeded' or job[18] then return ledger_only() end

if state == 'calling' then  -- An answer is here: the newer attempt has nothing left to do.
  give_permit(provider, id .. ' ' .. holder)
  close_attempt(id, attempt_of(id, holder), 'superseded', '', 'maybe', now)
  tell_worker(job[11], id, holder)
end
return finish(state, 'late')
