-- Settles entries for good and appends their outputs. An entry is its id, how many outputs come before its own,
-- and how many are its own. After all entries come the outputs: of each the number of its stream, for how many
-- milliseconds its id is remembered, the id, the body, the time and the headers. Last is the number of entries.
-- Returns the ids of those not held.
-- KEYS: stream, failures, delayed, streams of the outputs, their ids. Outputs are written before the ack: if
-- the server runs out of memory between the two, they are written again and not lost.
local last = FIRST + ARGV[#ARGV] * 3 - 1
local held, at, refused = fence(3, last)
local time, streams, remembering = now(), (#KEYS - 3) / 2, {}
for i, id in ipairs(held) do
  local output = last + 1 + ARGV[at[i] + 1] * 6
  for _ = 1, ARGV[at[i] + 2] do
    local stream = 3 + ARGV[output]
    local ids = KEYS[stream + streams]
    append_unless_known(KEYS[stream], ids, time, unpack(ARGV, output + 1, output + 5))
    if tonumber(ARGV[output + 1]) > 0 then remembering[ids] = true end
    output = output + 6
  end
  redis.call('XACK', KEYS[1], ARGV[1], id)
  clear({id})
end
for ids in pairs(remembering) do forget(ids, time, #held + 100) end
return refused
