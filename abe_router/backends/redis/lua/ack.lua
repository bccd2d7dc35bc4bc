-- Settles entries for good; an entry is its id. Returns the ids of those not held.
-- KEYS: stream, failures, delayed.
local count, entries = tonumber(ARGV[3]), #ARGV - FIRST + 1
local held, refused, _ = nil, {}, nil
-- Usually the entries to settle are all that the consumer holds between the first and the last of them, in
-- the same order. The range of their milliseconds would also return other entries and take twice as long.
local page = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[FIRST], ARGV[#ARGV], entries + 1, ARGV[2])
local all = #page == entries
for i, entry in ipairs(page) do
  if not all then break end
  all = entry[1] == ARGV[i + FIRST - 1] and entry[4] == count
end
if all then
  held = {unpack(ARGV, FIRST)}
else
  held, _, refused = fence(held_now(), 1)
end
if #held > 0 then
  redis.call('XACK', KEYS[1], ARGV[1], unpack(held))
  if count > 1 then clear(held) end
end
return refused
