#!lua flags=allow-oom
-- Reports one gateway's transactions under an account's rates, and takes units of all rates or of none.
--
-- KEYS: 1 the rates (hash). For each period: `f:<period>` units under way, `f:<period>:<gateway>` those of one gateway,
-- `u:<period>` units that have ended and still count, in buckets of a hundredth of the period: `b:<period>:<bucket>` units,
-- `l:<period>:<bucket>` when the last of them ended, from `o:<period>` to `n:<period>`; `t:<period>` when the next unit is due at an
-- even pace. `s:<gateway>` the last request. No limit is part of it, so a changed limit keeps the usage.
-- ARGV: 1 the time in microseconds, or "" for the server's; 2 gateway; 3 its run; 4 the number of the request within the run;
-- 5 "1": units are taken; then for each rate: period, limit or -1, "1" for a quota, units to take, units under way, units given
-- back, the time that the units take, the time of those given back, the tolerance of the pace.
-- Returns {"granted" | "later" | "flight" | "used", place of the rate, wait, time until the pace allows a unit, {used}}.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local who, run, number, takes = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
local key = KEYS[1]
local function whole(value) return string.format('%.0f', value) end
local function get(field) return tonumber(redis.call('HGET', key, field)) end
local function set(field, value) redis.call('HSET', key, field, whole(value)) end
local function add(field, value) redis.call('HINCRBY', key, field, whole(value)) end

local last = redis.call('HGET', key, 's:' .. who)
if last then
  local known, before = string.match(last, '(%d+) (%d+)')
  if run < tonumber(known) or (run == tonumber(known) and number <= tonumber(before)) then
    return redis.error_reply('STALE a later request has been answered')
  end
end
redis.call('HSET', key, 's:' .. who, whole(run) .. ' ' .. whole(number))

local function finish(period, units)
  local newest = get('n:' .. period)
  local bucket = math.max(math.floor(now / (period / 100)), newest or 0)
  if not newest then set('o:' .. period, bucket) end
  set('n:' .. period, bucket)
  set('l:' .. period .. ':' .. whole(bucket), now)
  add('b:' .. period .. ':' .. whole(bucket), units)
  add('u:' .. period, units)
end

-- Buckets whose last unit ended a period ago no longer count.
local function release(period)
  local oldest, newest = get('o:' .. period), get('n:' .. period)
  if not oldest then return nil end
  while oldest <= newest do
    local name = period .. ':' .. whole(oldest)
    local ended = get('l:' .. name)
    if ended and ended + period > now then
      set('o:' .. period, oldest)
      return oldest, newest
    end
    if ended then
      add('u:' .. period, -(get('b:' .. name) or 0))
      redis.call('HDEL', key, 'l:' .. name, 'b:' .. name)
    end
    oldest = oldest + 1
  end
  redis.call('HDEL', key, 'o:' .. period, 'n:' .. period)
  return nil
end

-- nil: there is room. Otherwise when there is, or math.huge if only units under way are in the way.
local function full(period, limit, units, oldest, newest, used)
  local over = used + math.min(units, limit) - limit
  if over <= 0 then return nil end
  for bucket = oldest or 1, newest or 0 do
    local name = period .. ':' .. whole(bucket)
    over = over - (get('b:' .. name) or 0)
    if over <= 0 then return get('l:' .. name) + period end
  end
  return math.huge
end

local rates, used = {}, {}
local pace, later, flight, place, up = 0, 0, false, nil, 0
for at = 6, #ARGV, 9 do
  local period = ARGV[at]
  local rate = {period = period, limit = tonumber(ARGV[at + 1]), is_quota = ARGV[at + 2] == '1', units = tonumber(ARGV[at + 3])}
  local under_way, back = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  rate.span, rate.tolerance = tonumber(ARGV[at + 6]), tonumber(ARGV[at + 8])
  local known = get('f:' .. period .. ':' .. who) or 0
  local ended = known - under_way - back
  if ended > 0 then finish(period, ended) end
  set('f:' .. period .. ':' .. who, under_way)
  add('f:' .. period, under_way - known)
  local due = math.max(0, (get('t:' .. period) or 0) - tonumber(ARGV[at + 7]))
  set('t:' .. period, due)
  local oldest, newest = release(period)
  local total = (get('f:' .. period) or 0) + (get('u:' .. period) or 0)
  rates[#rates + 1], used[#used + 1] = rate, total
  local free = rate.limit >= 0 and full(period, rate.limit, rate.units, oldest, newest, total) or nil
  local ready = math.max(0, due - rate.tolerance)
  if rate.is_quota then
    if free and not place then place, up = #rates - 1, free == math.huge and now + 1000000 or free end
  else
    pace, later = math.max(pace, ready), math.max(later, ready)
    if free == math.huge then flight = true elseif free then later = math.max(later, free) end
  end
end
redis.call('PEXPIRE', key, '172800000')

local verdict, wait = 'granted', 0
if not takes then
elseif place then
  verdict, wait = 'used', math.max(0, up - now)
elseif later > now then
  verdict, wait = 'later', later - now
elseif flight then
  verdict = 'flight'
else
  local taken = {}
  for _, rate in ipairs(rates) do
    local period = rate.period
    if not taken[period] then
      taken[period] = true
      add('f:' .. period, rate.units)
      add('f:' .. period .. ':' .. who, rate.units)
      if not rate.is_quota then
        local due = math.max(get('t:' .. period) or 0, now) + rate.span
        set('t:' .. period, due)
        pace = math.max(pace, due - rate.tolerance)
      end
    end
  end
end
return {verdict, place or 0, wait, math.max(0, pace - now), used}
