-- Entries that are too large for a consumer. They become dead letters on the server, and do not cross the wire.

-- Most bytes of an entry that is delivered: a payload at its limit, and as much for all other fields.
local MOST_BYTES = 2 * 1024 * 1024
-- An answer ends with the entry that brings it to as many bytes.
local ANSWER_BYTES = 8 * 1024 * 1024
-- Most bytes of a field, and most fields, that the dead letter of a larger one keeps.
local SHORT, FEW = 1000, 100

-- Returns the bytes of an entry, and the group that it is for, nothing if that is every group.
local function size_and_group(fields)
  local size, only = 0, nil
  for i = 1, #fields, 2 do
    size = size + #fields[i] + #fields[i + 1]
    if fields[i] == 'only' then only = fields[i + 1] end
  end
  return size, only
end

-- Returns what is sent of a larger entry that is for another group: nothing but that. Its reader acks it then.
local function for_another(only)
  return {'only', string.sub(only, 1, SHORT)}
end

-- Returns what a dead letter keeps of the fields: short ones, and the beginning of the payload. That is in
-- another field, because a part of a payload may be a valid payload.
local function shortened(fields)
  local kept = {}
  for i = 1, math.min(#fields, 2 * FEW), 2 do
    local name, value = fields[i], fields[i + 1]
    if name == 'data' then
      name, value = 'beginning', string.sub(value, 1, SHORT)
    end
    if #name <= SHORT and #value <= SHORT and name ~= 'dead_letter' and name ~= 'only' then
      kept[#kept + 1] = name
      kept[#kept + 1] = value
    end
  end
  return kept
end
