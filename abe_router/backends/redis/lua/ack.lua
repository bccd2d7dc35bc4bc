-- Settles entries for good; an entry is its id. Returns the ids of those not held.
-- KEYS: stream, failures.
local page, count = held_now(), tonumber(ARGV[3])
local held, refused, _ = nil, {}, nil
local all = #page == #ARGV - FIRST + 1
for i, entry in ipairs(page) do
  if not all then break end
  all = entry[1] == ARGV[i + FIRST - 1] and entry[4] == count
end
if all then -- the usual case: exactly what is held, in the same order
  held = {unpack(ARGV, FIRST)}
else
  held, _, refused = fence(page, 1)
end
if #held > 0 then
  redis.call('XACK', KEYS[1], ARGV[1], unpack(held))
  if count > 1 then redis.call('HDEL', KEYS[2], unpack(held)) end
end
return refused
