-- Give up a call whose worker is gone. The call may have been billed: the ledger says maybe.
-- ARGV: 1 id, 2 token, 3 provider, 4 the renewal time the caller saw, or '' when the worker itself is known to be dead,
--       5 the worker it must belong to, or '', 6 at how many lost calls a job is given up
-- Returns what became of it: gone | renewed | stale | queued | failed | cancelled
let_through()
local id, token, provider = ARGV[1], ARGV[2], ARGV[3]
local member, key = ARGV[1] .. ' ' .. ARGV[2], 'job:' .. ARGV[1]
local seen = redis.call('ZSCORE', 'leases:' .. provider, member)
if not seen then return 'gone' end
if ARGV[4] ~= '' and tonumber(seen) ~= tonumber(ARGV[4]) then return 'renewed' end
local job = redis.call('HMGET', key, 'state', 'token', 'worker', 'on_lost', 'deadline', 'cancel', 'queue', 'budget', 'lane',
  'delivered')
if ARGV[5] ~= '' and job[3] ~= ARGV[5] then return 'stale' end
give_permit(provider, member)
if job[1] ~= 'calling' or job[2] ~= token then return 'stale' end

-- What had come of the answer, as chat.partial puts it together and as JSON; nil if its beginning is gone. It ends at a gap.
local function partial()
  local texts, called, order, count = {content = {}, reasoning = {}}, {}, {}, 0
  for _, entry in ipairs(redis.call('XRANGE', 'stream:' .. id, '-', '+')) do
    if tonumber(string.match(entry[1], '%-(%d+)$')) ~= count + 1 then break end
    count = count + 1
    local delta = cjson.decode(entry[2][2])
    for kind, pieces in pairs(texts) do pieces[#pieces + 1] = delta[kind] end
    local piece = delta.tool_call
    if piece and piece.id then
      order[#order + 1] = piece.index
      called[piece.index] = {id = piece.id, name = piece.name, arguments = {}}
    end
    local call = piece and called[piece.index]
    if call then call.arguments[#call.arguments + 1] = piece.arguments end
  end
  if count == 0 then return nil end
  table.sort(order)
  local tool_calls = {}  -- An empty list would be an empty object to cjson.
  for i, index in ipairs(order) do
    local call = called[index]
    tool_calls[i] = cjson.encode({id = call.id, type = 'function',
      ['function'] = {name = call.name, arguments = table.concat(call.arguments)}})
  end
  return '{"content":' .. cjson.encode(table.concat(texts.content))
    .. ',"reasoning":' .. (#texts.reasoning > 0 and cjson.encode(table.concat(texts.reasoning)) or 'null')
    .. ',"tool_calls":[' .. table.concat(tool_calls, ',') .. '],"output_tokens":' .. int(count) .. '}'
end

local now = now_ms()
close_attempt(id, attempt_of(id, token), 'lost', '', 'maybe', now)
redis.call('HINCRBY', 'acct', 'reclaimed', 1)
local lost = redis.call('HINCRBY', key, 'unknown', 1)

local function give_up(state, code, message)
  local error, came = error_json(id, code, message), job[10] and partial()
  if came then error = string.sub(error, 1, -2) .. ',"partial":' .. came .. '}' end
  end_job(id, 'calling', state, nil, error, '', now)
  return state
end

if job[6] then return give_up('cancelled', 'job_cancelled', 'the job was cancelled; its worker died during the call') end
if now >= tonumber(job[5]) then
  return give_up('failed', 'deadline_exceeded', 'the deadline passed; the worker of the call died')
end
-- Whoever has seen the beginning of an answer is not given another one.
if job[4] == 'retry' and not job[10] and lost < tonumber(ARGV[6]) then
  move(id, job[7], 'calling', 'queued', 'lease lost')
  push(id, job[7], job[8], job[9])
  return 'queued'
end
return give_up('failed', 'outcome_unknown',
  'the worker died during the upstream call, which may have been billed; ask again to repeat it')
