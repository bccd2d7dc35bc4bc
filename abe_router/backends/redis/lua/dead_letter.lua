-- Moves entries to the dead letters; an entry is its id, the dead letter, and the body, id, time and headers of
-- the message. Returns the ids of those not held.
-- KEYS: stream, failures, delayed, dead.

-- Returns the fields of an entry whose body was not sent. Without `data` it has no message, so its fields are kept
-- as they are. Lua limits the arguments of a call, so of many fields only the first ones are kept. Otherwise it
-- is too large. Its id and time are added, because a replay is another entry.
local function without_data(id, at)
  local row = redis.call('XRANGE', KEYS[1], id, id)[1]
  if not row then return nil end
  local fields, own = {'id', ARGV[at + 3], 'at', ARGV[at + 4]}, {id = true, at = true}
  local kept, size = row[2], 0
  for i = 1, #kept, 2 do
    if kept[i] == 'data' and kept[i + 1] == '' then return nil end
    size = size + #kept[i] + #kept[i + 1]
  end
  if size > MOST_BYTES then kept = shortened(kept) end
  for i = 1, math.min(#kept, 4000), 2 do
    if kept[i] ~= 'dead_letter' and kept[i] ~= 'only' and not own[kept[i]] then
      fields[#fields + 1] = kept[i]
      fields[#fields + 1] = kept[i + 1]
    end
  end
  return fields
end

-- Returns the field of a replayed entry that says how often, and of which dead letter.
local function former(id)
  local row = redis.call('XRANGE', KEYS[1], id, id)[1]
  for i = 1, row and #row[2] or 0, 2 do
    if row[2][i] == 'former' then return {'former', row[2][i + 1]} end
  end
  return {}
end

local held, at, refused = fence(6)
for i, id in ipairs(held) do
  local a = at[i]
  local fields = ARGV[a + 2] == '' and without_data(id, a)
  if fields then
    redis.call('XADD', KEYS[4], '*', 'dead_letter', ARGV[a + 1], unpack(fields))
  else
    redis.call('XADD', KEYS[4], '*', 'dead_letter', ARGV[a + 1],
      'data', ARGV[a + 2], 'id', ARGV[a + 3], 'at', ARGV[a + 4], 'headers', ARGV[a + 5], unpack(former(id)))
  end
  redis.call('XACK', KEYS[1], ARGV[1], id)
  clear({id})
end
return refused
