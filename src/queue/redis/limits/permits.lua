#!lua flags=allow-oom
-- Renews the permits of one gateway for an account, and changes their number.
--
-- KEYS: 1 the permits (hash: gateway -> "count need cap beat hold run number"), 2 the rates, 3 the breakers of the account, 4 the
-- set of accounts.
-- ARGV: 1 the time in microseconds, or "" for the server's; 2 account; 3 gateway; 4 its run; 5 the number of the request within
-- the run; 6 "1": the gateway had an answer before; 7 cap; 8 permits held; 9 permits needed; 10 for how long permits of a gateway
-- that is gone stay taken; 11 "renew", "leave" or "forget"; 12 after what time without renewal a gateway is gone; 13 the length
-- of a turn.
-- Returns {permits, share, permits elsewhere, whether some gateway has fewer than it needs, {breakers}}.
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local who, run, number = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local asked = {cap = tonumber(ARGV[7]), held = tonumber(ARGV[8]), need = tonumber(ARGV[9]), hold = tonumber(ARGV[10])}
local what, gone, turn = ARGV[11], tonumber(ARGV[12]), tonumber(ARGV[13])
local DAY = 86400000
local function whole(value) return string.format('%.0f', value) end

-- The transactions under way of a gateway that is no more count as ended now.
local function remove(gateway)
  redis.call('HDEL', KEYS[1], gateway)
  for _, period in ipairs({'1000000', '60000000', '3600000000', '86400000000'}) do
    local flight = tonumber(redis.call('HGET', KEYS[2], 'f:' .. period .. ':' .. gateway)) or 0
    redis.call('HDEL', KEYS[2], 'f:' .. period .. ':' .. gateway)
    if flight > 0 then
      redis.call('HINCRBY', KEYS[2], 'f:' .. period, whole(-flight))
      local newest = tonumber(redis.call('HGET', KEYS[2], 'n:' .. period))
      local bucket = math.max(math.floor(now / (period / 100)), newest or 0)
      if not newest then redis.call('HSET', KEYS[2], 'o:' .. period, whole(bucket)) end
      redis.call('HSET', KEYS[2], 'n:' .. period, whole(bucket), 'l:' .. period .. ':' .. whole(bucket), whole(now))
      redis.call('HINCRBY', KEYS[2], 'b:' .. period .. ':' .. whole(bucket), whole(flight))
      redis.call('HINCRBY', KEYS[2], 'u:' .. period, whole(flight))
    end
  end
end

if what == 'forget' then
  remove(who)
  return {0, 0, 0, 0, {}}
end

local gateways, own = {}, nil
local fields = redis.call('HGETALL', KEYS[1])
for at = 1, #fields, 2 do
  local id, numbers = fields[at], {}
  for value in string.gmatch(fields[at + 1], '%S+') do numbers[#numbers + 1] = tonumber(value) end
  local gateway = {id = id, count = numbers[1], need = numbers[2], cap = numbers[3], beat = numbers[4]}
  if id == who then
    own = true
    -- A request that was delayed on its way must not undo a later one.
    if run < numbers[6] or (run == numbers[6] and number <= numbers[7]) then
      return redis.error_reply('STALE a later request has been answered')
    end
  elseif string.sub(id, 1, 1) == '!' then
    gateways[id] = fields[at + 1]
  elseif now >= gateway.beat + gone + numbers[5] then
    remove(id)
  else
    gateway.is_live = now < gateway.beat + gone
    gateways[#gateways + 1] = gateway
  end
end

-- After a restart or failover, or if the ledger was lost, nobody gets more until every gateway has said what it has.
local grace = tonumber(gateways['!grace']) or 0
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
if (gateways['!server'] and gateways['!server'] ~= server) or (ARGV[6] == '1' and not own) then grace = now + gone end

local elsewhere, vanished, cap = 0, 0, asked.cap
for _, other in ipairs(gateways) do
  elsewhere = elsewhere + other.count
  if other.is_live then cap = math.min(cap, other.cap) else vanished = vanished + other.count end
end
local room = math.max(0, cap - vanished)

-- Nobody gets more than it needs, and nobody less than another while it needs more; what cannot be divided goes to those whose
-- turn it is. Returns the share of this gateway, and what is left.
local function divide(need)
  local all = {{id = who, need = need, share = 0}}
  for _, other in ipairs(gateways) do
    if other.is_live then all[#all + 1] = {id = other.id, need = other.need, share = 0} end
  end
  local mine = all[1]
  table.sort(all, function(one, other) return one.id < other.id end)
  local left = room
  while left > 0 do
    local short = {}
    for _, one in ipairs(all) do
      if one.share < one.need then short[#short + 1] = one end
    end
    if #short == 0 then break end
    local each = math.floor(left / #short)
    if each == 0 then
      local first = math.floor(now / turn) % #short
      for at = 0, left - 1 do
        local one = short[(first + at) % #short + 1]
        one.share = one.share + 1
      end
      left = 0
    else
      for _, one in ipairs(short) do
        local more = math.min(each, one.need - one.share)
        one.share, left = one.share + more, left - more
      end
    end
  end
  return mine.share, left
end

local is_leaving = what == 'leave'
local need = is_leaving and 0 or asked.need
local mine, left = divide(need)
local keeps = is_leaving and 0 or math.min(left, math.max(0, asked.held - mine))
local permits = math.min(mine + keeps, math.max(0, cap - elsewhere))
if now < grace then permits = math.min(permits, asked.held) end
local share = 0
if not is_leaving then share = divide(cap) end
redis.call('HSET', KEYS[1], '!server', server, '!grace', whole(grace))
local count = math.max(permits, asked.held)
local contended = need > count
for _, other in ipairs(gateways) do
  contended = contended or (other.is_live and other.need > other.count)
end

if is_leaving and asked.held == 0 then
  remove(who)
else
  local values = {count, need, asked.cap, now, asked.hold, run, number}
  for at, value in ipairs(values) do values[at] = whole(value) end
  redis.call('HSET', KEYS[1], who, table.concat(values, ' '))
  redis.call('PEXPIRE', KEYS[1], whole(DAY + (gone + asked.hold) / 1000))
  redis.call('SADD', KEYS[4], ARGV[2])
end

local breakers = {}
fields = redis.call('HGETALL', KEYS[3])
local of = {}
for at = 1, #fields, 2 do of[fields[at]] = fields[at + 1] end
for field, value in pairs(of) do
  local kind, upstream = string.match(field, '^(%a):(.*)$')
  if kind == 'p' then
    local _, by = string.match(value, '^(%d+) (.*)$')
    if by == who then redis.call('HSET', KEYS[3], field, whole(now + gone) .. ' ' .. by) end
  elseif kind == 'g' then
    local open = of['o:' .. upstream]
    local breaker = {upstream, tonumber(value), 0, 0, 0, 0, ''}
    if open then
      local til, urgent, failures, reason = string.match(open, '^(%d+) (%d+) (%d+) (.*)$')
      breaker = {upstream, tonumber(value), 1, math.max(0, til - now), math.max(0, urgent - now), tonumber(failures), reason}
    end
    breakers[#breakers + 1] = breaker
  end
end
return {permits, share, elsewhere, contended and 1 or 0, breakers}
