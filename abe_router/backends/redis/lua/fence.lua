-- The fence of the scripts that settle. ARGV: group, consumer, delivery count of the entries, how many pending
-- entries of the consumer prove that it holds all of these (0 for no proof; see `ack`), then the entries, each
-- `step` arguments long and beginning with its id.
-- The delivery count distinguishes this delivery from an earlier one to the same consumer. To read the
-- consumer's pending entries as a range costs a fraction of asking for each.
local FIRST = 5

-- Returns the first and the last millisecond of the ids, as texts, because they may exceed what a number holds.
local function span(step, last)
  local low, high
  for i = FIRST, last or #ARGV, step do
    local at = string.match(ARGV[i], '^%d+')
    if not low or #at < #low or (#at == #low and at < low) then low = at end
    if not high or #at > #high or (#at == #high and at > high) then high = at end
  end
  return low, high
end

-- What the consumer holds in the range of the entries, in order: {id, consumer, idle, delivery count} of each.
local function held_now(step, last)
  local low, high = span(step, last)
  local all = redis.call('XPENDING', KEYS[1], ARGV[1], low, high, 1000, ARGV[2])
  local page = all
  while #page == 1000 do
    page = redis.call('XPENDING', KEYS[1], ARGV[1], '(' .. page[1000][1], high, 1000, ARGV[2])
    for _, entry in ipairs(page) do all[#all + 1] = entry end
  end
  return all
end

-- Splits the entries, which end at `last` or with ARGV, into those that the consumer holds (their ids and their
-- positions in ARGV) and the ids of the others.
local function fence(step, last)
  local count, counts, held, at, refused = tonumber(ARGV[3]), {}, {}, {}, {}
  for _, entry in ipairs(held_now(step, last)) do counts[entry[1]] = entry[4] end
  for i = FIRST, last or #ARGV, step do
    local id = ARGV[i]
    if counts[id] == count then
      held[#held + 1] = id
      at[#at + 1] = i
      counts[id] = nil
    else
      refused[#refused + 1] = id
    end
  end
  return held, at, refused
end

-- Deletes the failures and due times of entries that are settled or were deleted from the stream. Entries
-- that an exclusive handle keeps have a due time until its next read.
local function clear(ids)
  redis.call('HDEL', KEYS[2], unpack(ids))
  redis.call('ZREM', KEYS[3], unpack(ids))
end

-- Passes entries to a consumer; returns those that the stream still has. FORCE is never used: it would
-- bring back settled entries.
local function pass(consumer, ids, ...)
  local command = {'XCLAIM', KEYS[1], ARGV[1], consumer, 0, unpack(ids)}
  for _, word in ipairs({...}) do command[#command + 1] = word end
  return redis.call(unpack(command))
end
