-- Deletes an entry of a bucket, if it has the expected revision. Returns 1 if it did.
-- KEYS: entries, expiry. ARGV: name, the expected revision or nothing.
local time = now()
local current = read(redis.call('HGET', KEYS[1], ARGV[1]), time)
expire(KEYS[1], KEYS[2], time)
if current == 0 or (ARGV[2] ~= '' and current ~= tonumber(ARGV[2])) then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
