-- Registers a subscription, unless it exists. Returns its start, and whether it is new.
-- KEYS: subscriptions, dropped. ARGV: name, start in milliseconds or nothing for now.
redis.call('SREM', KEYS[2], ARGV[1])
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known and string.match(known, '^%d+$') then return {known, 0} end
local start = ARGV[2] == '' and string.format('%d', now()) or ARGV[2]
redis.call('HSET', KEYS[1], ARGV[1], start)
return {start, 1}
