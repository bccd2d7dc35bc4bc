-- Reads entries that stay where they are, as many as one answer may bring.

-- Most bytes of an entry that is shown whole: one that can be delivered, and what a dead letter says of it.
local WHOLE_BYTES = 2 * MOST_BYTES

-- Returns entries of a stream from an id on, at most `limit`, and whether it stopped before because they have
-- `room` bytes. Larger ones than that are shortened.
local function entries_from(stream, first, limit, room)
  local found = {}
  while #found < limit do
    if room <= 0 then return found, true end
    local step = math.min(10, limit - #found)
    local rows = redis.call('XRANGE', stream, first, '+', 'COUNT', step)
    for _, row in ipairs(rows) do
      if room <= 0 then return found, true end
      local size = size_and_group(row[2])
      if size > WHOLE_BYTES then row[2] = shortened(row[2]) end
      found[#found + 1] = row
      room = room - math.min(size, WHOLE_BYTES)
    end
    if #rows < step then break end
    first = '(' .. rows[#rows][1]
  end
  return found, false
end
