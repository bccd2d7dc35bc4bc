-- Notes a subscription, unless it is known. Returns its start, and whether it is new.
-- KEYS: subscriptions, dropped, entered. ARGV: name, start in milliseconds or nothing for now, anything that
-- was not in `entered` before.
redis.call('SREM', KEYS[2], ARGV[1])
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then return {known, 0} end
local start = ARGV[2] == '' and string.format('%d', now()) or ARGV[2]
redis.call('HSET', KEYS[1], ARGV[1], start)
redis.call('SET', KEYS[3], ARGV[3])
return {start, 1}
