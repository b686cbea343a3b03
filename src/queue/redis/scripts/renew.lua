#!lua flags=allow-oom
-- Moves the ends of leases that still exist to so many milliseconds from now.
--
-- KEYS[1]: the leases of the instance. ARGV[1]: milliseconds; from ARGV[2] on: the leases.
-- Returns those that exist.
local time = redis.call('TIME')
local stop = string.format('%.0f', time[1] * 1000000 + time[2] + ARGV[1] * 1000)
local renewed = {}
for at = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[at]) then
    redis.call('ZADD', KEYS[1], stop, ARGV[at])
    renewed[#renewed + 1] = ARGV[at]
  end
end
return renewed
