-- What a provider is doing just now.
-- ARGV: 1 provider
-- Returns JSON: {now, in_use, lanes: {lane: {depth, oldest, parked, starts_per_s}}, budgets: [{name, match, rate,
--         closed_until, why, used, day, interactive, batch, in_use, limit}], stats}
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
  local queue = lane == 'batch' and 'chat.' .. provider .. '.batch' or 'chat.' .. provider
  local oldest = redis.call('ZRANGE', 'queued:' .. queue, 0, 0)[1]
  lanes[lane] = {depth = redis.call('ZCARD', 'queued:' .. queue), parked = 0, starts_per_s = starts_per_s(queue, now),
    oldest = oldest and tonumber(redis.call('HGET', 'job:' .. oldest, 'created') or now) or nil}
end

local budgets, seen = {}, {}
local function look(budget, match)
  if seen[budget] then return end
  seen[budget] = true
  local _, limit = settings_of(provider, match)
  local b = load_budget(budget)
  local closed = b.closed_until and b.closed_until > now
  local view = {name = budget, match = match, limit = limit, rate = rates_current(b, limit, now), learned = rates_learned(b, limit, now) ~= nil,
    closed_until = closed and b.closed_until or nil, why = closed and b.why or nil,
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
return cjson.encode({now = now, in_use = in_use, lanes = lanes, budgets = budgets, stats = stats})
