-- Ask for the end of a job: its result if it is over, else the channel is told when it is.
-- ARGV: 1 id, 2 channel, 3 'add' or 'remove'
-- Returns the result, '' when it is not over, or nil when there is no such job
local key = 'job:' .. ARGV[1]
local job = redis.call('HMGET', key, 'state', 'watch')
if not job[1] then return false end
if TERMINAL[job[1]] then return redis.call('GET', 'celery-task-meta-' .. ARGV[1]) or '' end
local left, removed = {}, false
for channel in string.gmatch(job[2] or '', '%S+') do
  if ARGV[3] == 'remove' and not removed and channel == ARGV[2] then removed = true else left[#left + 1] = channel end
end
if ARGV[3] == 'add' then left[#left + 1] = ARGV[2] end
redis.call('HSET', key, 'watch', table.concat(left, ' '))
return ''
