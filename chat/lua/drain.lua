-- Let no call of a provider begin from now on, or let them begin again. Calls in flight go on either way.
-- ARGV: 1 provider, 2 'drain' or 'resume'
-- Returns {since when (ms) it is drained, or was until now, or '' when it was not, 1 if this call has drained it}
let_through()
local key = 'drained:' .. ARGV[1]
local since = redis.call('GET', key)
if ARGV[2] == 'resume' then
  if since then
    redis.call('DEL', key)
    audit('', 'resumed', ARGV[1])
  end
  return {since or '', 0}
end
if since then return {since, 0} end
since = int(now_ms())
redis.call('SET', key, since)
audit('', 'drained', ARGV[1])
return {since, 1}
