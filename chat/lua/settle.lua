-- Remove the records of ended jobs before their retention ends: whoever asked for them has collected their answers.
-- ARGV: their ids; jobs that are not over stay, unknown ones are ignored
-- Returns how many records went
local gone = 0
for _, id in ipairs(ARGV) do
  local state = redis.call('HGET', 'job:' .. id, 'state')
  if state and TERMINAL[state] then
    remove(id, state)
    gone = gone + 1
  end
end
return gone
