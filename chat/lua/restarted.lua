-- Note that Redis had no scripts: it has just been started, or another server has taken over. See `is_recalling`.
-- Several processes may come at once: the first of them notes it, and workers that have been heard since are heard.
let_through()
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%x+)')
if not run or redis.call('GET', 'chatd:run') ~= run or redis.call('EXISTS', 'chatd:restarted') == 0 then
  redis.call('MSET', 'chatd:run', run or '', 'chatd:restarted', int(now_ms()))
end
