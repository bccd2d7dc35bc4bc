-- Registers subscriptions again that the server lost, by eviction or DEL. Returns the positions of those in
-- ARGV. A subscription that was dropped stays dropped.
-- KEYS: subscriptions, dropped. ARGV: for each subscription its name, and its start in milliseconds.
local restored = {}
for i = 1, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 0 and redis.call('SISMEMBER', KEYS[2], ARGV[i]) == 0 then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    restored[#restored + 1] = (i - 1) / 2
  end
end
return restored
