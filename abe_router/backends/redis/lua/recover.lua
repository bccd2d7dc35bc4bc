-- Takes entries that the consumer holds without knowing it, because the reply that brought them was lost. The
-- delivery counts stay. Returns what `take` returns, the last as 1 or 0.
-- KEYS: stream, failures, delayed, dead. ARGV: group, consumer, ids.
local wanted = {}
for i = 3, #ARGV do
  local entry = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])[1]
  if entry then wanted[#wanted + 1] = {ARGV[i], entry[4]} end
end
local taken, gone, large, full = take(wanted)
return {taken, gone, large, full and 1 or 0}
