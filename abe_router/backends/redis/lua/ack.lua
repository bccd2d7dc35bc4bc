-- Settles entries for good; an entry is its id. Returns the ids of those not held.
-- KEYS: stream, failures.
local held, _, refused = fence(1)
if #held > 0 then
  redis.call('XACK', KEYS[1], ARGV[1], unpack(held))
  if ARGV[3] ~= '1' then redis.call('HDEL', KEYS[2], unpack(held)) end
end
return refused
