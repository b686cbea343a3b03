#!lua flags=allow-oom
-- Stores the clock by which mail ages, unless another instance has stored a later time.
--
-- KEYS[1]: the clock's hash. ARGV: the time lived in milliseconds, the wall clock's time, the latest time that one has shown,
-- the boot's id and its uptime in milliseconds; empty: not known.
if tonumber(redis.call('HGET', KEYS[1], 'lived') or 0) <= tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 'lived', ARGV[1], 'at', ARGV[2], 'latest', ARGV[3], 'boot', ARGV[4], 'uptime', ARGV[5])
end
return 1
