-- Applies one change: all of it, or nothing if a condition does not hold.
--
-- KEYS[1]: the shard's control hash. The steps name the other keys by their position.
-- ARGV[1]: the queue's identity and generation; ARGV[2], ARGV[3]: the shard and the number of shards.
-- From ARGV[4] on: steps, each a name and its arguments. Conditions come first, so nothing is written before all hold.
-- Returns {"done", ...} with the answers of the steps that have one, or {reason, ...}.
local control = KEYS[1]
local shard, shards = tonumber(ARGV[2]), tonumber(ARGV[3])
if redis.call('HGET', control, 'gen') ~= ARGV[1] then return {'identity'} end

local at = 4
local function take()
  local value = ARGV[at]
  at = at + 1
  return value
end
local function key() return KEYS[tonumber(take())] end

local now
local function micros()
  if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
  end
  return now
end
-- %.0f: tostring would round to 14 digits.
local function whole(number) return string.format('%.0f', number) end
-- A position that no other message or row of any shard has, and that grows within the shard.
local function position()
  local next = math.max(micros(), tonumber(redis.call('HGET', control, 'tick') or 0) + 1)
  next = whole(next + (shard - next) % shards)
  redis.call('HSET', control, 'tick', next)
  return next
end

local answers = {'done'}
local steps = {
  version = function()
    local message = key()
    if redis.call('HGET', message, 'v') ~= take() then return {'changed'} end
  end,
  absent = function()
    local message, token = key(), take()
    local stored = redis.call('HMGET', message, 'v', 'put')
    if stored[1] then return {stored[2] == token and 'stored' or 'taken'} end
  end,
  unrevoked = function()
    local revoked = key()
    if redis.call('ZSCORE', revoked, take()) then return {'revoked'} end
  end,
  undelivered = function()
    local rows, id = key(), take()
    if #redis.call('ZRANGEBYLEX', rows, '[' .. id .. ':', '(' .. id .. ';', 'LIMIT', 0, 1) > 0 then return {'stored'} end
  end,
  unknown = function()
    local known, name, lived, own = key(), take(), tonumber(take()), take()
    local id, stop = string.match(redis.call('HGET', known, name) or '', '^(%S+) (%d+)$')
    if id and id ~= own and tonumber(stop) > lived then return {'known', id} end
  end,
  unheld = function()
    local lane = take()
    local held = redis.call('HMGET', control, 'hold:' .. lane, 'hold')
    if (held[1] or held[2]) == '1' then return {'held'} end
  end,
  epoch = function()
    if (redis.call('HGET', control, 'epoch') or '0') ~= take() then return {'epoch'} end
  end,
  routed = function()
    if redis.call('HGET', control, 'routing') ~= take() then return {'changed'} end
  end,
  ended = function()
    local leases = key()
    local stop = redis.call('ZSCORE', leases, take())
    if stop and tonumber(stop) > micros() then return {'running'} end
  end,

  set = function()
    local target, fields = key(), {}
    for _ = 1, 2 * tonumber(take()) do fields[#fields + 1] = take() end
    redis.call('HSET', target, unpack(fields))
  end,
  unset = function()
    local target = key()
    redis.call('HDEL', target, take())
  end,
  delete = function() redis.call('DEL', key()) end,
  add = function()
    local set, score = key(), take()
    redis.call('ZADD', set, score, take())
  end,
  remove = function()
    local set = key()
    redis.call('ZREM', set, take())
  end,
  count = function()
    local numbers, field = key(), take()
    if redis.call('HINCRBY', numbers, field, take()) == 0 then redis.call('HDEL', numbers, field) end
  end,
  turn = function()
    local due, domains, domain = key(), key(), take()
    local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
    if first[2] then
      redis.call('ZADD', domains, first[2], domain)
    else
      redis.call('ZREM', domains, domain)
    end
  end,
  lend = function()
    local leases, length = key(), take()
    redis.call('ZADD', leases, whole(micros() + length * 1000), take())
  end,
  order = function()
    local all, message, id = key(), key(), take()
    local next = position()
    redis.call('ZADD', all, next, id)
    redis.call('HSET', message, 'seq', next)
  end,
  place = function()
    local oldest, order = key(), redis.call('HGET', key(), 'seq')
    redis.call('ZADD', oldest, order, take())
  end,
  history = function()
    local rows, by_id, id = key(), key(), take()
    local next = position()
    redis.call('ZADD', rows, next, next .. ' ' .. take())
    redis.call('ZADD', by_id, 0, id .. ':' .. next)
  end,
  remember = function()
    local known, ends, name, id, stop = key(), key(), take(), take(), take()
    redis.call('HSET', known, name, id .. ' ' .. stop)
    redis.call('ZADD', ends, stop, name)
  end,
  forget = function()
    local known, ends, name, id = key(), key(), take(), take()
    if string.match(redis.call('HGET', known, name) or '', '^%S+') == id then
      redis.call('HDEL', known, name)
      redis.call('ZREM', ends, name)
    end
  end,
  expire = function()
    local known, ends, name, lived = key(), key(), take(), tonumber(take())
    local stop = redis.call('ZSCORE', ends, name)
    if stop and tonumber(stop) <= lived then
      redis.call('HDEL', known, name)
      redis.call('ZREM', ends, name)
    end
  end,
  routes = function()
    -- Mail that was put on the lanes of other routes than the stored ones makes those incomplete.
    local routes = take()
    local stored = redis.call('HMGET', control, 'routes', 'routing')
    if (stored[1] or stored[2] or routes) ~= routes then redis.call('HDEL', control, 'routes', 'routing') end
  end,
  accept = function()
    answers[#answers + 1] = whole(redis.call('HINCRBY', control, 'accepted', 1))
    answers[#answers + 1] = whole(redis.call('HINCRBY', control, 'accepted:' .. take(), 1))
  end,
  content = function()
    local content = redis.call('HMGET', key(), 'head', 'body')
    answers[#answers + 1] = content[1]
    answers[#answers + 1] = content[2]
  end,
  tell = function()
    local channel = take()
    redis.call('PUBLISH', channel, take())
  end,
}
while at <= #ARGV do
  local refused = steps[take()]()
  if refused then return refused end
end
return answers
