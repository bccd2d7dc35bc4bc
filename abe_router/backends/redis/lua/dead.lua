-- Returns dead letters without the payloads of their messages, as one list: of each its id, its record, the id of
-- its message and `former`. Then 1 if there are more because enough bytes were read. Lua gets the payloads too, so
-- they are read in parts that are small enough for the cache of the processor.
-- KEYS: dead. ARGV: first id, limit, the bytes after which it stops.
local found, n, first, left = {}, 0, ARGV[1], tonumber(ARGV[2])
local room, bytes, step = tonumber(ARGV[3]), 0, 1
while left > 0 do
  if bytes >= room then return {found, 1} end
  local part = redis.call('XRANGE', KEYS[1], first, '+', 'COUNT', math.min(left, step))
  for _, entry in ipairs(part) do
    local fields, record, id, former = entry[2], '', '', ''
    for i = 1, #fields, 2 do
      local name, value = fields[i], fields[i + 1]
      if name == 'dead_letter' then record = value
      elseif name == 'id' then id = value
      elseif name == 'former' then former = value end
      bytes = bytes + #value
    end
    found[n + 1], found[n + 2], found[n + 3], found[n + 4] = entry[1], record, id, former
    n = n + 4
  end
  if #part < math.min(left, step) then break end
  first, left = '(' .. part[#part][1], left - #part
  step = math.max(1, math.min(100, math.floor((room - bytes) * n / (4 * bytes + 1))))
end
return {found, 0}
