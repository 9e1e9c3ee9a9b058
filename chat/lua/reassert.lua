-- A worker is in a call, and Redis may have forgotten it: enter it again, with its permit.
-- ARGV: 1 id, 2 token, 3 provider, 4 worker, 5 the record as `start` handed it out, 6 request JSON,
--       7 'delivered' when a piece of the answer may have gone out, or ''
-- Returns what `recall` does
let_through()
local id, token, provider, worker = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now, record = now_ms(), cjson.decode(ARGV[5])
local became = recall(id, token, worker, record, ARGV[6], now)
if became == 'taken' or became == 'recreated' then
  take_permit(provider, id .. ' ' .. token, record.lane, record.budget, now)
  if ARGV[7] ~= '' then redis.call('HSET', 'job:' .. id, 'delivered', 1) end
end
return became
