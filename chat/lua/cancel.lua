-- Cancel a job. In no call it ends at once and costs nothing; a call is closed by its worker, which then ends the job.
-- ARGV: 1 id
-- Returns the state afterwards, or nil when there is no such job
let_through()
local id = ARGV[1]
local key = 'job:' .. id
local job = redis.call('HMGET', key, 'state', 'worker', 'token')
if not job[1] then return false end
if job[1] == 'calling' then
  if redis.call('HSETNX', key, 'cancel', '1') == 1 then audit(id, 'cancelling') end
  tell_worker(job[2], id, job[3])
  return 'calling'
end
if TERMINAL[job[1]] then return job[1] end
end_job(id, job[1], 'cancelled', nil, error_json(id, 'job_cancelled', 'the job was cancelled before it was sent upstream'), '', now_ms())
return 'cancelled'
