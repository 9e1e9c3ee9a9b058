-- What a provider is doing just now.
-- ARGV: 1 provider
-- Returns JSON: {now, day_ends, drained: since when (ms) if it is, in_use, lanes: {lane: {depth, oldest, parked, starts_per_s}},
--         budgets: [{name, match, rate, learned, closed_until, why, used, interactive, batch, in_use, limit}], stats,
--         latencies: [[most, calls]]}
local provider = ARGV[1]
local now = now_ms()
local in_use, stats = {}, {}
local function hash_of(key, into)
  local found = redis.call('HGETALL', key)
  for i = 1, #found, 2 do into[found[i]] = tonumber(found[i + 1]) end
end
hash_of('in_use:' .. provider, in_use)
hash_of('stats:' .. provider, stats)

local lanes = {}
for _, lane in ipairs({'interactive', 'batch'}) do
  local queue = queue_of(provider, lane)
  local oldest = redis.call('ZRANGE', 'queued:' .. queue, 0, 0)[1]
  lanes[lane] = {depth = redis.call('ZCARD', 'queued:' .. queue), parked = 0, starts_per_s = starts_per_s(queue, now),
    oldest = oldest and tonumber(redis.call('HGET', 'job:' .. oldest, 'created') or now) or nil}
end

local budgets, seen = {}, {}
local function look(budget, match)
  if seen[budget] then return end
  seen[budget] = true
  local settings, limit = settings_of(provider, match)
  local b = load_budget(budget)
  local ms, why = opens_in(b, settings, limit, now, 'interactive', 0)
  local closed = CLOSED[why] ~= nil
  local view = {name = budget, match = match, limit = limit, rate = rates_current(b, limit, now), learned = rates_learned(b, limit, now) ~= nil,
    closed_until = closed and now + ms or nil, why = closed and why or nil,
    used = b.day == math.floor(now / DAY_MS) and b.used or 0, in_use = in_use['budget ' .. budget] or 0}
  for _, lane in ipairs({'interactive', 'batch'}) do
    local key = 'parked:' .. budget .. ':' .. lane
    view[lane] = redis.call('ZCARD', key)
    lanes[lane].parked = lanes[lane].parked + view[lane]
    local oldest = redis.call('ZRANGE', key, 0, 0)[1]
    local created = oldest and tonumber(redis.call('HGET', 'job:' .. oldest, 'created') or now)
    if created and created < (lanes[lane].oldest or created + 1) then lanes[lane].oldest = created end
  end
  budgets[#budgets + 1] = view
end
for _, budget in ipairs(redis.call('ZREVRANGE', 'budgets:' .. provider, 0, 199)) do
  look(budget, redis.call('HGET', 'budget:' .. budget, 'match') or '*')
end
local parked = redis.call('HGETALL', 'parked')
for i = 1, #parked, 2 do
  local owner, match = string.match(parked[i + 1], '^(%S+) (.*)$')
  if owner == provider then look(parked[i], match) end
end
local latencies = {}
for i, most in ipairs(LATENCIES) do latencies[i] = {most, stats['le ' .. most] or 0} end
latencies[#latencies + 1] = {'+Inf', stats['le +Inf'] or 0}
local day_ends = (math.floor(now / DAY_MS) + 1) * DAY_MS
return cjson.encode({now = now, day_ends = day_ends, drained = drained_since(provider), in_use = in_use, lanes = lanes, budgets = budgets, stats = stats,
  latencies = latencies})
