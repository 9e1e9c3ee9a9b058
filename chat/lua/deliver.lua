-- Pass on pieces of answers that are on their way: each is kept for who comes late, and told to whoever watches its job.
-- ARGV: five for each piece: job, token, attempt, number of the piece within it, the piece as JSON
-- Returns the "<job> <token>" of calls that are no longer wanted; of these, and of calls that Redis has forgotten, nothing
-- is passed on. The first write asks for memory: a full Redis takes all of it or nothing.
local MOST = 20000    -- pieces that are kept of one answer, about
local KEPT_S = 300    -- for which they are kept after the last of them
local calls, unwanted, streams, channels, messages = {}, {}, {}, {}, {}

-- What is needed of a call; false if the job is not its own.
local function look_at(id, token)
  local key = 'job:' .. id
  local job = redis.call('HMGET', key, 'state', 'token', 'watch', 'delivered')
  if job[1] ~= 'calling' or job[2] ~= token then
    -- Of a call that is not in the ledger Redis knows nothing yet: its worker will enter it again.
    local over = job[1] and (TERMINAL[job[1]] or attempt_of(id, token)) or redis.call('ZSCORE', 'removed', id)
    if over then unwanted[#unwanted + 1] = id .. ' ' .. token end
    return false
  end
  if not job[4] then redis.call('HSET', key, 'delivered', 1) end
  local stream = 'stream:' .. id
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  local attempt, number = string.match(last and last[1] or '0-0', '^(%d+)%-(%d+)$')
  local call = {stream = stream, attempt = tonumber(attempt), number = tonumber(number), channels = {}}
  local seen = {}
  for channel in string.gmatch(job[3] or '', '%S+') do
    if not seen[channel] then call.channels[#call.channels + 1] = channel end
    seen[channel] = true
  end
  return call
end

-- What is sent twice is kept once.
local function keep(call, attempt, number, delta)
  if attempt < call.attempt or attempt == call.attempt and number <= call.number then return end
  redis.call('XADD', call.stream, 'MAXLEN', '~', MOST, int(attempt) .. '-' .. int(number), 'd', delta)
  call.attempt, call.number = attempt, number
  streams[call.stream] = true
end

-- Where a message would become too large, its reader finds the piece in the stream.
local function tell(channel, head, delta)
  local message = messages[channel]
  if not message then
    message = {events = {}, size = 0}
    messages[channel] = message
    channels[#channels + 1] = channel
  end
  local event = head .. (message.size + #head + #delta > REPLY_LIMIT and 'null' or delta) .. ']'
  message.events[#message.events + 1] = event
  message.size = message.size + #event + 1
end

for i = 1, #ARGV, 5 do
  local id, token, attempt, number, delta = unpack(ARGV, i, i + 4)
  local member = id .. ' ' .. token
  if calls[member] == nil then calls[member] = look_at(id, token) end
  local call = calls[member]
  if call then
    keep(call, tonumber(attempt), tonumber(number), delta)
    local head = '["' .. id .. '",' .. attempt .. ',' .. number .. ','
    for _, channel in ipairs(call.channels) do tell(channel, head, delta) end
  end
end
for stream in pairs(streams) do redis.call('EXPIRE', stream, KEPT_S) end
for _, channel in ipairs(channels) do
  redis.call('PUBLISH', channel, '{"events":[' .. table.concat(messages[channel].events, ',') .. ']}')
end
return unwanted
