-- Where a job stands that is not being called: what for it waits, its place, and when its turn may come.
-- Returns {why, until (ms) or '', position or '', estimated start (ms) or ''}, or false when it waits for nothing
local function standing(id)
  local job = redis.call('HMGET', 'job:' .. id, 'state', 'provider', 'queue', 'lane', 'budget', 'match', 'waiting', 'cost')
  local now = now_ms()
  if job[1] ~= 'queued' and job[1] ~= 'waiting' then return false end
  local drained = drained_since(job[2])

  if job[1] == 'queued' then
    local place = redis.call('ZRANK', 'queued:' .. job[3], id)
    if drained or not place then return {drained and 'drained' or 'queue', '', place and place + 1 or '', ''} end
    local rate = starts_per_s(job[3], now)
    return {'queue', '', place + 1, rate > 0.01 and int(now + (place + 1) * 1000 / rate) or ''}
  end

  local settings, limit = settings_of(job[2], job[6])
  local b = load_budget(job[5])
  local due = redis.call('ZSCORE', 'due', id)
  if due and drained then return {'drained', '', '', ''} end
  if due then
    if b.closed_until and b.closed_until > tonumber(due) then return {b.why, int(b.closed_until), '', int(b.closed_until)} end
    return {job[7] or 'retry', due, '', due}
  end
  local place = (redis.call('ZRANK', 'parked:' .. job[5] .. ':' .. job[4], id) or 0) + 1
  if job[4] == 'batch' then place = place + redis.call('ZCARD', 'parked:' .. job[5] .. ':interactive') end
  if drained then return {'drained', '', place, ''} end
  local ms, why = 0, nil
  if settings then ms, why = opens_in(b, settings, limit, now, job[4], tonumber(job[8] or 0)) end
  local rate = rates_current(b, limit, now)
  local opens_at = ms > 0 and CLOSED[why] and now + ms or nil
  local begins = rate and int((opens_at or now) + place * 1000 / rate) or opens_at and int(opens_at) or ''
  if not opens_at then why = why or (CLOSED[job[7]] and 'rate' or job[7]) or 'rate' end
  return {why, opens_at and int(opens_at) or '', place, begins}
end
