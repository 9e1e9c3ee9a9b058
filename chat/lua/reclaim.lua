-- Give up a call whose worker is gone. The call may have been billed: the ledger says maybe.
-- ARGV: 1 id, 2 token, 3 provider, 4 the renewal time the caller saw, or '' when the worker itself is known to be dead,
--       5 the worker it must belong to, or '', 6 at how many lost calls a job is given up
-- Returns what became of it: gone | renewed | stale | queued | failed | cancelled
let_through()
local id, token, provider = ARGV[1], ARGV[2], ARGV[3]
local member, key = ARGV[1] .. ' ' .. ARGV[2], 'job:' .. ARGV[1]
local seen = redis.call('ZSCORE', 'leases:' .. provider, member)
if not seen then return 'gone' end
if ARGV[4] ~= '' and tonumber(seen) ~= tonumber(ARGV[4]) then return 'renewed' end
local job = redis.call('HMGET', key, 'state', 'token', 'worker', 'on_lost', 'deadline', 'cancel', 'queue', 'budget', 'lane')
if ARGV[5] ~= '' and job[3] ~= ARGV[5] then return 'stale' end
give_permit(provider, member)
if job[1] ~= 'calling' or job[2] ~= token then return 'stale' end

local now = now_ms()
close_attempt(id, attempt_of(id, token), 'lost', '', 'maybe', now)
redis.call('HINCRBY', 'acct', 'reclaimed', 1)
local lost = redis.call('HINCRBY', key, 'unknown', 1)
if job[6] then
  end_job(id, 'calling', 'cancelled', nil, error_json(id, 'job_cancelled', 'the job was cancelled; its worker died during the call'), '', now)
  return 'cancelled'
end
if now >= tonumber(job[5]) then
  end_job(id, 'calling', 'failed', nil, error_json(id, 'deadline_exceeded', 'the deadline passed; the worker of the call died'), '', now)
  return 'failed'
end
if job[4] == 'retry' and lost < tonumber(ARGV[6]) then
  move(id, job[7], 'calling', 'queued', 'lease lost')
  push(id, job[7], job[8], job[9])
  return 'queued'
end
end_job(id, 'calling', 'failed', nil, error_json(id, 'outcome_unknown',
  'the worker died during the upstream call, which may have been billed; ask again to repeat it'), '', now)
return 'failed'
