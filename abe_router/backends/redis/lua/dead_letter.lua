-- Moves entries to the dead letters; an entry is its id, the dead letter, and the body, id, time and headers of
-- the message. Returns the ids of those not held.
-- KEYS: stream, failures, delayed, dead.

-- Returns the fields of an entry of another program that has no `data`: there is no message, so they are kept as
-- they are. Lua limits the arguments of a call, so of many fields only the first ones are kept.
-- Its id and time are added, because a replay is another entry.
local function without_data(id, at)
  local row = redis.call('XRANGE', KEYS[1], id, id)[1]
  if not row then return nil end
  local fields, own = {'id', ARGV[at + 3], 'at', ARGV[at + 4]}, {id = true, at = true}
  for i = 1, math.min(#row[2], 4000), 2 do
    if row[2][i] == 'data' then return nil end
    if row[2][i] ~= 'dead_letter' and row[2][i] ~= 'only' and not own[row[2][i]] then
      fields[#fields + 1] = row[2][i]
      fields[#fields + 1] = row[2][i + 1]
    end
  end
  return fields
end

local held, at, refused = fence(held_now(), 6)
for i, id in ipairs(held) do
  local a = at[i]
  local fields = ARGV[a + 2] == '' and without_data(id, a)
  if fields then
    redis.call('XADD', KEYS[4], '*', 'dead_letter', ARGV[a + 1], unpack(fields))
  else
    redis.call('XADD', KEYS[4], '*', 'dead_letter', ARGV[a + 1],
      'data', ARGV[a + 2], 'id', ARGV[a + 3], 'at', ARGV[a + 4], 'headers', ARGV[a + 5])
  end
  redis.call('XACK', KEYS[1], ARGV[1], id)
  clear({id})
end
return refused
