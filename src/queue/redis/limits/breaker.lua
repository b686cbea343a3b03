#!lua flags=allow-oom
-- Records what happened to an upstream at one gateway, or gives the right to probe it to one gateway.
--
-- KEYS: 1 the breakers (hash): `g:<upstream>` the number of changes, `o:<upstream>` "until urgent failures reason" while it is open,
-- `p:<upstream>` "until gateway" of the one that probes.
-- ARGV: 1 the time in microseconds, or "" for the server's; 2 gateway; 3 upstream; 4 "open", "close", "probe", "release" or "cut";
-- 5 pause, 6 pause for urgent callers, 7 failures, 8 reason; 9 after what time without renewal a gateway is gone.
-- Returns {changes, whether it is open, rest of the pause, of the urgent pause, failures, reason, whether the gateway may probe}.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local who, name, what = ARGV[2], ARGV[3], ARGV[4]
local function whole(value) return string.format('%.0f', value) end

local til, urgent, failures, reason = 0, 0, 0, ''
local record = redis.call('HGET', KEYS[1], 'o:' .. name)
local is_open = not not record
if record then
  til, urgent, failures, reason = string.match(record, '^(%d+) (%d+) (%d+) (.*)$')
  til, urgent, failures = tonumber(til), tonumber(urgent), tonumber(failures)
end
local probe_until, prober = 0, nil
record = redis.call('HGET', KEYS[1], 'p:' .. name)
if record then
  probe_until, prober = string.match(record, '^(%d+) (.*)$')
  probe_until = tonumber(probe_until)
end
local function changed() redis.call('HINCRBY', KEYS[1], 'g:' .. name, 1) end
local function store()
  local text = whole(til) .. ' ' .. whole(urgent) .. ' ' .. whole(failures) .. ' ' .. reason
  redis.call('HSET', KEYS[1], 'o:' .. name, text)
end
local function end_probe()
  if prober == who then redis.call('HDEL', KEYS[1], 'p:' .. name) end
end

local may_probe = false
if what == 'open' then
  til = math.max(til, now + tonumber(ARGV[5]))
  urgent = math.max(urgent, now + tonumber(ARGV[6]))
  failures, reason, is_open = math.max(failures, tonumber(ARGV[7])), ARGV[8], true
  store()
  changed()
  end_probe()
elseif what == 'close' then
  if is_open then changed() end
  redis.call('HDEL', KEYS[1], 'o:' .. name)
  is_open, til, urgent, failures, reason = false, 0, 0, 0, ''
  end_probe()
elseif what == 'probe' then
  local elsewhere = prober and prober ~= who and now < probe_until
  may_probe = not elsewhere and not (is_open and now < urgent)
  if may_probe and is_open then redis.call('HSET', KEYS[1], 'p:' .. name, whole(now + tonumber(ARGV[9])) .. ' ' .. who) end
elseif what == 'release' then
  end_probe()
elseif what == 'cut' and is_open then
  til, urgent = math.min(til, now), math.min(urgent, now)
  store()
  changed()
end
redis.call('PEXPIRE', KEYS[1], '172800000')
local changes = tonumber(redis.call('HGET', KEYS[1], 'g:' .. name)) or 0
return {
  changes, is_open and 1 or 0, math.max(0, til - now), math.max(0, urgent - now), failures, reason, may_probe and 1 or 0
}
