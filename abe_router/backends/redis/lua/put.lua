-- Keeps a value in a bucket, if the entry has the expected revision. Returns the new revision, or 0. KEYS:
-- entries, expiry, revision. ARGV: name, value, the expected revision or nothing, milliseconds to live or
-- nothing.
local time = now()
expire(KEYS[1], KEYS[2], time)
local current = read(redis.call('HGET', KEYS[1], ARGV[1]), time)
if ARGV[3] ~= '' and current ~= tonumber(ARGV[3]) then return 0 end
local revision = redis.call('INCR', KEYS[3])
local till = ARGV[4] == '' and 0 or time + ARGV[4]
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d:%d:', revision, till) .. ARGV[2])
if till > 0 then
  redis.call('ZADD', KEYS[2], till, ARGV[1])
else
  redis.call('ZREM', KEYS[2], ARGV[1])
end
return revision
