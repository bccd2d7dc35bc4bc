-- Moves entries to the dead letters; an entry is its id, the dead letter, and the body, id, time and headers of
-- the message. Returns the ids of those not held.
-- KEYS: stream, failures, delayed, dead.
local held, at, refused = fence(held_now(), 6)
for i, id in ipairs(held) do
  local a = at[i]
  redis.call('XADD', KEYS[4], '*', 'dead_letter', ARGV[a + 1],
    'data', ARGV[a + 2], 'id', ARGV[a + 3], 'at', ARGV[a + 4], 'headers', ARGV[a + 5])
  redis.call('XACK', KEYS[1], ARGV[1], id)
  clear({id})
end
return refused
