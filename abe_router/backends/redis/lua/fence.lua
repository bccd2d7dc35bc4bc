-- Splits the entries from ARGV[6] on, each `step` arguments long and beginning with its id, into those the
-- consumer holds (their ids, and where in ARGV they are) and the ids of the others.
-- ARGV: group, consumer, how often the entries were delivered, first and last millisecond of their ids.
-- One XPENDING over that range costs a tenth of one for each entry. The delivery count tells this hand-out
-- from an earlier one to the same consumer.
local function fence(step)
  local counts, from, page = {}, ARGV[4], nil
  repeat
    page = redis.call('XPENDING', KEYS[1], ARGV[1], from, ARGV[5], 1000, ARGV[2])
    for _, entry in ipairs(page) do counts[entry[1]] = entry[4] end
    if #page == 1000 then from = '(' .. page[1000][1] end
  until #page < 1000
  local count, held, at, refused = tonumber(ARGV[3]), {}, {}, {}
  for i = 6, #ARGV, step do
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

-- Passes entries to a consumer; returns those that the stream still has. Never with FORCE, which would
-- bring back what was settled.
local function pass(consumer, ids, ...)
  local command = {'XCLAIM', KEYS[1], ARGV[1], consumer, 0, unpack(ids)}
  for _, word in ipairs({...}) do command[#command + 1] = word end
  return redis.call(unpack(command))
end
