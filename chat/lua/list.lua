-- The newest jobs that match, without what they were asked and what they answered.
-- ARGV: 1 the id to go on after or '', 2 the most jobs to return, 3 states with a space between them or '', 4 provider or '',
--       5 lane or '', 6 owner or '' for everybody's
-- Returns {the id to go on after or '' when nothing older is left, job, ...}, each job
--         {id, its result or '' when it succeeded or is not over, field, value, ...}
local LOOKED_AT = 1000  -- the most records that one call reads to find what matches
local SHOWN = {'state', 'provider', 'lane', 'model', 'upstream_model', 'created', 'deadline', 'metadata', 'owner', 'attempts'}
local after, limit, provider, lane, owner = ARGV[1], tonumber(ARGV[2]), ARGV[4], ARGV[5], ARGV[6]
local states = {}
for state in string.gmatch(ARGV[3], '%S+') do states[state] = true end

local function matches(job)
  local state = job[1]
  return state and (states[state] or ARGV[3] == '') and (job[2] == provider or provider == '')
    and (job[3] == lane or lane == '') and (job[4] == owner or owner == '')
end

local function shown(id)
  local key = 'job:' .. id
  local names = {unpack(SHOWN)}
  for number = 1, tonumber(redis.call('HGET', key, 'attempts') or 0) do names[#names + 1] = 'a:' .. number end
  local values = redis.call('HMGET', key, unpack(names))
  local state = values[1]
  -- The result has the error; that of a job that succeeded is its answer, which may be large.
  local meta = TERMINAL[state] and state ~= 'succeeded' and redis.call('GET', 'celery-task-meta-' .. id)
  local job = {id, meta or ''}
  for i, name in ipairs(names) do
    if values[i] then
      job[#job + 1] = name
      job[#job + 1] = values[i]
    end
  end
  return job
end

local most = LOOKED_AT
if ARGV[3] .. provider .. lane .. owner == '' then most = limit end
local page = {''}
local ids = redis.call('ZRANGE', 'jobs', after == '' and '+' or '(' .. after, '-', 'BYLEX', 'REV', 'LIMIT', 0, most + 1)
for i, id in ipairs(ids) do
  if i > most or #page > limit then
    page[1] = ids[i - 1]
    break
  end
  if matches(redis.call('HMGET', 'job:' .. id, 'state', 'provider', 'lane', 'owner')) then page[#page + 1] = shown(id) end
end
return page
