-- End jobs whose deadline passed while they were in no call. A call's own worker ends it, or the loss of its lease does.
-- ARGV: 1 an id, or '' for the next 100 that are due
-- Returns for an id its result ('' when it is not over), for '' how many were looked at
let_through()
local now = now_ms()
local function expire(id)
  local job = redis.call('HMGET', 'job:' .. id, 'state', 'deadline', 'waiting', 'provider')
  local state = job[1]
  if not state then
    redis.call('ZREM', 'deadlines', id)
    redis.call('DEL', 'request:' .. id)
    return ''
  end
  if TERMINAL[state] then return redis.call('GET', 'celery-task-meta-' .. id) or '' end
  if now < tonumber(job[2]) then return '' end
  if state == 'calling' then
    redis.call('ZADD', 'deadlines', int(now + 5000), id)
    return ''
  end
  local where = drained_since(job[4]) and 'while its provider was drained'
    or state == 'waiting' and 'while the job waited (' .. (job[3] or '') .. ')' or 'before the job was sent upstream'
  return end_job(id, state, 'expired', nil, error_json(id, 'deadline_exceeded', 'the deadline passed ' .. where), '', now)
end

if ARGV[1] ~= '' then return expire(ARGV[1]) end
local due = redis.call('ZRANGEBYSCORE', 'deadlines', '-inf', int(now), 'LIMIT', 0, 100)
for _, id in ipairs(due) do expire(id) end
return #due
