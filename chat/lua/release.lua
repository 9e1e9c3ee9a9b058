-- Bring parked jobs back: those whose own back-off is over, and of each budget as many as it can start now.
-- Those of a drained provider stay where they are.
-- ARGV: 1 'sweep' to end also the jobs whose deadline is nearer than the opening of their budget
-- Returns {how many came back, ms until the next one can, or -1}
let_through()
local now = now_ms()
-- Of one budget at a time: those that are brought back stand in the list before jobs of other budgets.
local MOST = 40

for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'due', '-inf', int(now), 'LIMIT', 0, MOST)) do
  redis.call('ZREM', 'due', id)
  local job = redis.call('HMGET', 'job:' .. id, 'state', 'provider', 'budget', 'match', 'lane', 'order')
  if job[1] == 'waiting' then line_up(id, job[2], job[3], job[4], job[5], job[6]) end
end

local released, soonest = 0, -1
local function wake(ms)
  if soonest < 0 or ms < soonest then soonest = ms end
end

local function bring_back(budget, provider, lane, count)
  local queue = queue_of(provider, lane)
  local ids = redis.call('ZRANGE', 'parked:' .. budget .. ':' .. lane, 0, count - 1)
  -- The first goes to the front last, so that it is served first.
  for i = #ids, 1, -1 do
    redis.call('ZREM', 'parked:' .. budget .. ':' .. lane, ids[i])
    if redis.call('HGET', 'job:' .. ids[i], 'state') == 'waiting' then
      move(ids[i], queue, 'waiting', 'queued', 'released')
      push(ids[i], queue, budget, lane, true)
    end
  end
  released = released + #ids
end

local function first_of(budget, lane)
  local id = redis.call('ZRANGE', 'parked:' .. budget .. ':' .. lane, 0, 0)[1]
  if not id then return nil end
  local job = redis.call('HMGET', 'job:' .. id, 'cost', 'created')
  return {cost = tonumber(job[1] or 0), created = tonumber(job[2] or now)}
end

local function sweep(budget, provider, lane, why, opens_at)
  for _, id in ipairs(redis.call('ZRANGE', 'parked:' .. budget .. ':' .. lane, 0, MOST - 1)) do
    local deadline = redis.call('HGET', 'job:' .. id, 'deadline')
    if deadline and tonumber(deadline) <= opens_at then
      end_job(id, 'waiting', 'failed', nil, closed_error(id, provider, why, opens_at), '', now, why)
    end
  end
end

-- How many calls like the first parked one the budget lets start now, and how long (ms) until one more can, if that
-- is a matter of time.
local function startable(b, settings, limit, lane, cost)
  if not is_paced(b, limit, now) then return MOST, nil end
  local copy, count = {}, 0
  for name, value in pairs(b) do copy[name] = value end
  while count < MOST do
    local ms = opens_in(copy, settings, limit, now, lane, cost)
    if ms > 0 then return count, ms end
    charge(copy, limit, now, cost)
    count = count + 1
  end
  return count, 20
end

local function release(budget, provider, settings, limit)
  local people, batch = first_of(budget, 'interactive'), first_of(budget, 'batch')
  if not people and not batch then
    redis.call('HDEL', 'parked', budget)
    return
  end
  local b, stored = load_budget(budget)
  local listed = redis.call('HMGET', 'budget:' .. budget, 'interactive', 'batch')
  local in_lists = {interactive = tonumber(listed[1] or 0), batch = tonumber(listed[2] or 0)}
  -- Those that come back go to the front of the list: not before the ones that came back earlier have been taken.
  local fronts = redis.call('HMGET', 'budget:' .. budget, 'front interactive', 'front batch')
  local paced = is_paced(b, limit, now)

  local function open_for(lane, first)
    local ms, why = opens_in(b, settings, limit, now, lane, first.cost)
    if ms <= 0 then return true end
    wake(ms)
    if ARGV[1] == 'sweep' and CLOSED[why] then sweep(budget, provider, lane, why, now + ms) end
    return false
  end

  local count, next_ms = 0, nil
  if people and open_for('interactive', people) then
    count, next_ms = startable(b, settings, limit, 'interactive', people.cost)
    if next_ms then wake(next_ms) end
    local turn = batch and settings.turn > 0 and (b.people or 0) >= settings.turn - 1
      and now - batch.created >= settings.max_wait and in_lists.batch == 0
      and opens_in(b, settings, limit, now, 'batch', batch.cost) <= 0
    if turn then
      b.turn = now
      save_budget(budget, b, stored)
      bring_back(budget, provider, 'batch', 1)
      return
    end
    local room = paced and count - in_lists.interactive or count
    if room > 0 and tonumber(fronts[1] or 0) <= 0 then bring_back(budget, provider, 'interactive', room) end
  end
  if not batch or not open_for('batch', batch) then return end
  if redis.call('ZCARD', 'parked:' .. budget .. ':interactive') == 0 then
    local room
    room, next_ms = startable(b, settings, limit, 'batch', batch.cost)
    if next_ms then wake(next_ms) end
    if paced then room = room - tonumber(redis.call('HGET', 'budget:' .. budget, 'interactive') or 0) - in_lists.batch end
    if room > 0 and tonumber(fronts[2] or 0) <= 0 then bring_back(budget, provider, 'batch', room) end
  end
end

local parked = redis.call('HGETALL', 'parked')
for i = 1, #parked, 2 do
  local provider, match = string.match(parked[i + 1], '^(%S+) (.*)$')
  local settings, limit = settings_of(provider, match)
  if settings and not drained_since(provider) then release(parked[i], provider, settings, limit) end
end
if released > 0 then wake(20) end  -- There may be more of them.
local due = redis.call('ZRANGE', 'due', 0, 0, 'WITHSCORES')
if due[2] then wake(math.max(0, due[2] - now)) end
return {released, math.ceil(soonest)}
