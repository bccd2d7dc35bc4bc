-- Settles entries for good; an entry is its id. Returns the ids of those not held.
-- KEYS: stream, failures, delayed.
local count, proof, entries = tonumber(ARGV[3]), tonumber(ARGV[4]), #ARGV - FIRST + 1
local holds_all = false
if proof > 0 then
  for _, owner in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1])[4] or {}) do
    if owner[1] == ARGV[2] then holds_all = tonumber(owner[2]) == proof end
  end
else
  -- Usually the entries to settle are all that the consumer holds between the first and the last of them, in
  -- the same order. The range of their milliseconds would also return other entries and take twice as long.
  local page = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[FIRST], ARGV[#ARGV], entries + 1, ARGV[2])
  local alike = #page == entries and 0 or nil
  while alike and alike < entries do
    local entry = page[alike + 1]
    alike = entry[1] == ARGV[alike + FIRST] and entry[4] == count and alike + 1 or nil
  end
  holds_all = alike == entries
end
if holds_all then
  redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, FIRST))
  if count > 1 then clear({unpack(ARGV, FIRST)}) end
  return {}
end
local held, _, refused = fence(1)
if #held > 0 then
  redis.call('XACK', KEYS[1], ARGV[1], unpack(held))
  if count > 1 then clear(held) end
end
return refused
