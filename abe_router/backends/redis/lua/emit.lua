-- Settles entries for good and appends what they emit. An entry is its id, how many outputs came before its own,
-- and how many are its own; after all entries come the outputs, of each the number of its stream in KEYS, the
-- body, the id, the time and the headers; and last the number of entries. Returns the ids of those not held.
-- KEYS: stream, failures, streams of the outputs. What is emitted is written first: should the server run out
-- of memory between the two, it is written again, and not lost.
local last = FIRST + ARGV[#ARGV] * 3 - 1
local held, at, refused = fence(held_now(), 3, last)
for i, id in ipairs(held) do
  local output = last + 1 + ARGV[at[i] + 1] * 5
  for _ = 1, ARGV[at[i] + 2] do
    local stream, body, name, time, headers = unpack(ARGV, output, output + 4)
    local fields = {'data', body, 'id', name, 'at', time}
    if headers ~= '' then
      fields[7], fields[8] = 'headers', headers
    end
    redis.call('XADD', KEYS[2 + stream], '*', unpack(fields))
    output = output + 5
  end
  redis.call('XACK', KEYS[1], ARGV[1], id)
  redis.call('HDEL', KEYS[2], id)
end
return refused
