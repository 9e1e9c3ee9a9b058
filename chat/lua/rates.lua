-- How fast a budget may send: calls and tokens per minute, what a 429 teaches, and cool-downs. Pure arithmetic on `b`, the
-- state of one budget; times are ms of Redis' clock, chance is in [0, 1). `python -m bench.learning` runs this very file
-- against simulated upstreams and prints what other constants would have done.

local RATES_KEEP = 0.93          -- a 429 leaves this part of what was accepted: room for what comes early or in bursts
local RATES_HOLD = 5000          -- ms after a cool-down without growth; a 429 in them says that the rate is still wrong
local RATES_GROWTH = 0.005       -- per second after the hold, at RATES_BUSY calls per second or more
local RATES_BUSY = 2             -- slower budgets grow more slowly: a limit per minute shows itself a minute late
local RATES_SEEK = 0.15          -- per second while the rate is a guess
local RATES_CALM = 60000         -- ms without a 429, and as many as RATES_CALM_CALLS take, after which it grows by
local RATES_CALM_CALLS = 20
local RATES_CALM_GROWTH = 0.03   -- per second, since the upstream seems to allow more than it did
local RATES_FORGET = 3600000     -- ms after an event, after which what it taught is no longer believed
local RATES_SPAN = 2000          -- ms of sending that make a measurement,
local RATES_ENOUGH = 10          -- the calls that make a good one,
local RATES_FEW = 3              -- and the calls below which it is a guess
local RATES_WINDOW = 60000       -- ms that are remembered at least: most limits are by the minute
local RATES_LEAST = 1 / 60       -- per second; slower than the longest backoff would be no kinder
local RATES_SLACK = 15           -- ms that a call may be early: it makes up for calls that reach Redis late
local RATES_CAP_SLACK = 500      -- the same for a configured rate, which pays for it with longer intervals,
local RATES_CAP_WAY = 500        -- and for calls that take different times to reach the upstream, whose minute counts
local RATES_BACKOFF = 1000       -- ms, jittered down to half, doubled by each event without an answer in between
local RATES_BACKOFF_MOST = 60000
local RATES_OVERLOAD_MOST = 8000
local RATES_QUOTA = 600000       -- ms, doubled each time, when nobody knows when the quota comes back
local RATES_QUOTA_MOST = 3600000

local RATES_FIELDS = {
  'last', 'tokens', 'tokens_at',                      -- the last call's place in the schedule; token bucket
  'closed_until', 'why', 'open_at', 'grow_at',        -- cool-down; end of the 429s' own; since when the rate grows
  'event_at', 'prev_at', 'streak',                    -- the last two events, and how many came without an answer between
  'rate', 'seek', 'pace', 'first',                    -- what was learned at event_at, from which pace, and how
  'from', 'sent', 'mark', 'since', 'after',           -- calls not refused: of the last minutes, since `mark`, since event_at
  'through', 'dry',                                   -- and from prev_at to event_at; since when none had been, at prev_at
  'short_from', 'short_mid', 'short_old', 'short_new',  -- and of the last seconds of sending, in two halves
  'over', 'over_at', 'quota', 'quota_at'}

-- Calls per second that 429s have taught, or nil. It grows from event to event, and only while the budget is in use.
local function rates_learned(b, limit, now)
  if not (b.rate and limit.learn) or now - b.event_at > RATES_FORGET then return nil end
  local quiet = now - b.grow_at
  local grown = math.max(0, quiet - (b.seek and RATES_SPAN or RATES_HOLD)) / 1000
  local calm = math.max(0, quiet - math.max(RATES_CALM, 1000 * RATES_CALM_CALLS / b.rate)) / 1000
  local growth = b.seek and RATES_SEEK or RATES_GROWTH * math.min(1, b.rate / RATES_BUSY)
  local rate = b.rate * math.exp(growth * (grown - calm) + math.max(growth, RATES_CALM_GROWTH) * calm)
  if limit.rpm and rate >= limit.rpm / 60 then return nil end
  return rate
end

-- Calls per second allowed now, or nil when there is no limit.
local function rates_current(b, limit, now)
  return rates_learned(b, limit, now) or limit.rpm and limit.rpm / 60
end

-- The schedule: ms between two calls (0: no limit), ms that a call may be early, and the last call's place in it. A call
-- is never booked further ahead than the slack, so what is further ahead was booked before Redis' clock stepped back.
local function rates_schedule(b, limit, now)
  local interval, slack, last = 0, RATES_SLACK, b.last
  local learned = rates_learned(b, limit, now)
  if learned then
    interval = 1000 / learned
  elseif limit.rpm then
    interval, slack = (60000 + RATES_CAP_SLACK + RATES_CAP_WAY) / limit.rpm, RATES_CAP_SLACK
  end
  if last and last > now + RATES_CAP_SLACK + 1 then last = nil end
  return interval, slack, last or now - interval
end

-- A quarter of the minute's tokens may go at once and three quarters come back per minute: no minute passes the limit.
local function rates_tokens(b, limit, now)
  local burst, back = limit.tpm / 4, limit.tpm * 0.75 / 60000
  local passed = now - (b.tokens_at or now)
  if passed < -1000 then return burst, burst, back end  -- The clock stepped back.
  return math.min(burst, (b.tokens or burst) + math.max(0, passed) * back), burst, back
end

-- ms until a call of `cost` tokens may start, and what it waits for. A call dearer than the bucket waits for a full one.
local function rates_wait(b, limit, now, cost)
  local interval, slack, last = rates_schedule(b, limit, now)
  local wait, why = 0, nil
  if interval > 0 then wait, why = math.ceil(last + interval - slack - now), 'rate' end
  if limit.tpm then
    local level, burst, back = rates_tokens(b, limit, now)
    -- What division makes of it may be a hair more or less than whole.
    local fill = math.ceil((math.min(cost, burst) - level) / back - 1e-6)
    if fill > wait then wait, why = fill, 'tokens' end
  end
  if wait <= 0 then return 0, nil end
  return wait, why
end

-- Count a call that starts now, for whatever the next 429 will ask.
local function rates_count(b, now, interval, idle)
  if b.grow_at and idle > RATES_SPAN then b.grow_at = b.grow_at + idle end
  if not b.from or b.from > now or idle > RATES_WINDOW then
    b.from, b.sent, b.since, b.after = now, 0, b.since or 0, b.after or 0
  elseif now - b.from > 2 * RATES_WINDOW then
    b.from, b.sent = now - RATES_WINDOW, b.sent * RATES_WINDOW / (now - b.from)
  end
  b.sent, b.since, b.after = b.sent + 1, b.since + 1, b.after + 1
  local half = math.max(RATES_SPAN, RATES_ENOUGH * interval)
  if not b.short_from or b.short_from <= (b.event_at or 0) or b.short_mid > now or idle > half then
    b.short_from, b.short_mid, b.short_old, b.short_new = now, now, 0, 0
  elseif now - b.short_mid >= half then
    b.short_from, b.short_mid, b.short_old, b.short_new = b.short_mid, now, b.short_new, 0
  end
  b.short_new = b.short_new + 1
end

-- Book a call that starts now. Tenths of a ms, rounded up, survive being stored as text.
local function rates_charge(b, limit, now, cost)
  local interval, _, last = rates_schedule(b, limit, now)
  local due = last + interval
  if limit.tpm then
    b.tokens = math.floor((rates_tokens(b, limit, now) - cost) * 100) / 100
    b.tokens_at = now
  end
  if limit.learn then rates_count(b, now, interval, now - math.max(due, b.open_at or 0)) end
  b.last = math.ceil(math.max(due, now) * 10) / 10
end

-- The true number of tokens of a call is known. The bucket may owe some, and never holds more than its burst.
local function rates_true_up(b, limit, estimated, real)
  if limit.tpm and b.tokens then b.tokens = math.min(limit.tpm / 4, b.tokens + estimated - real) end
end

local function rates_close(b, now, until_ms, why)
  if until_ms > math.max(now, b.closed_until or 0) then b.closed_until, b.why = until_ms, why end
end

local function rates_backoff(times, most, chance)
  return math.floor(math.min(most, RATES_BACKOFF * 2 ^ math.min(times - 1, 20)) * (0.5 + 0.5 * chance))
end

-- Since when nothing has got through, as seen at event_at.
local function rates_dry(b)
  return b.through == 0 and b.dry or b.event_at
end

-- What the event at event_at says. The first measures the last seconds of sending. One that follows within the hold time
-- measures from event to event, cool-down included: the allowance was used up at both ends, so this can only be too low,
-- and the higher of a short and a long stretch counts. Never faster than the pace that was just refused. The rate is a
-- guess when little was measured, or when nothing got through for a minute: that is an outage and no limit, which teaches
-- nothing about the rate.
local function rates_learn(b)
  if b.rate and b.event_at - rates_dry(b) > RATES_WINDOW then
    b.rate, b.seek = b.pace or b.rate, 1
    return
  end
  local span, calls, shorter = b.event_at - b.from, math.max(1, b.sent), b.event_at - (b.mark or 0)
  if b.first then
    span, calls = b.event_at - b.short_from, math.max(1, b.short_old + b.short_new)
  elseif b.since / math.max(1000, shorter) > calls / math.max(1000, span) then
    span, calls = shorter, b.since
  end
  local rate = calls * 1000 / math.max(1000, span)
  b.rate = math.max(RATES_LEAST, RATES_KEEP * math.min(rate, b.pace or rate))
  b.seek = (span < RATES_SPAN or calls < RATES_FEW) and 1 or nil
end

-- A 429. Calls count as accepted until they are refused: answers may take half a minute, refusals come at once.
-- Returns whether this is a new event; a call begun before the last one only corrects what that one taught.
local function rates_refused(b, limit, now, started, retry_ms, chance)
  local learn = limit.learn and b.from
  if b.event_at and started <= b.event_at and b.event_at <= now then
    if learn and b.rate then
      local count = b.first and 'short_new' or 'since'
      b.sent, b[count] = math.max(0, b.sent - 1), math.max(0, b[count] - 1)
      if started > (b.prev_at or 0) then b.through = math.max(0, b.through - 1) end
      rates_learn(b)
    end
    if retry_ms and now + retry_ms > b.open_at then
      b.open_at, b.grow_at = now + retry_ms, now + retry_ms
      rates_close(b, now, b.open_at, 'rate_limited')
    end
    return false
  end
  local again = b.event_at and now <= b.open_at + RATES_HOLD
  b.streak = (again and b.streak or 0) + 1
  if learn then
    b.pace = rates_current(b, limit, now)
    b.sent, b.since, b.after = math.max(0, b.sent - 1), math.max(0, b.since - 1), math.max(0, b.after - 1)
    if not (again and b.mark) then  -- Without a mark it is the first that is learned from, however soon it comes.
      b.first, b.mark, b.since = 1, now, 0
      b.short_new = math.max(0, b.short_new - 1)
    else
      -- The stretches move on once the shorter one, as corrected since, held enough calls.
      if not b.first and b.since - b.after >= RATES_ENOUGH then
        b.from, b.sent, b.mark, b.since = b.mark, b.since, b.event_at, b.after
      end
      b.first = nil
    end
    b.dry = b.through and rates_dry(b) or now
    b.through, b.after = b.after, 0
  end
  b.prev_at, b.event_at = b.event_at, now
  if learn then rates_learn(b) end
  -- A first refusal is met by the lower rate: half the pause is enough.
  local pause = math.floor(rates_backoff(b.streak, RATES_BACKOFF_MOST, chance) * (b.streak == 1 and limit.learn and 0.5 or 1))
  b.open_at = now + math.max(retry_ms or 0, pause)
  b.grow_at = b.open_at
  rates_close(b, now, b.open_at, 'rate_limited')
  return true
end

-- What an answer looks at, and whether the budget is closed.
local RATES_ACCEPTED = {'event_at', 'prev_at', 'streak', 'quota_at', 'quota', 'over', 'closed_until', 'why'}

-- A call ended with an answer. One begun between the last two events shows that the last began a new streak.
local function rates_accepted(b, _, _, started)
  if started > (b.event_at or 0) then
    b.streak = 0
  elseif started > (b.prev_at or 0) then
    b.streak = 1
  end
  if started > (b.quota_at or 0) then b.quota = nil end
  b.over = nil
end

-- The upstream is overloaded. One such answer is that job's bad luck, three in a row are not; nothing is learned of rates.
local function rates_overloaded(b, now, started, retry_ms, chance)
  local known = b.over_at and started <= b.over_at and b.over_at <= now
  if not known then
    b.over = (b.over or 0) + 1
    if b.over >= 3 then retry_ms = math.max(retry_ms or 0, rates_backoff(b.over - 2, RATES_OVERLOAD_MOST, chance)) end
    if retry_ms then b.over_at = now end
  end
  if retry_ms then rates_close(b, now, now + retry_ms, 'overloaded') end
end

-- The quota is used up until `until_ms`, or nobody knows until when. What refuses while that lasts is the same event.
local function rates_quota(b, now, until_ms, chance)
  if not until_ms or until_ms <= now then
    if b.why == 'quota_exhausted' and b.closed_until > now then return end
    b.quota = (b.quota or 0) + 1
    until_ms = now + math.floor(math.min(RATES_QUOTA_MOST, RATES_QUOTA * 2 ^ math.min(b.quota - 1, 20) * (1 + 0.1 * chance)))
  end
  b.quota_at = now
  rates_close(b, now, until_ms, 'quota_exhausted')
end
