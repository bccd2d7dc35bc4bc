-- Looks at the entries of a group that are not settled, and changes nothing. Returns {id, fields, consumer or
-- nothing if unread, delivery count, 1 if it is delayed} of each, in their order, and 1 if there are more because
-- the answer is full.
-- KEYS: stream, delayed. ARGV: group, where it begins when it does not exist yet, the id after which to begin,
-- limit, the bytes that make the answer full.
local group, last, limit, found = group_of(KEYS[1], ARGV[1]), ARGV[2], tonumber(ARGV[4]), {}
local room = tonumber(ARGV[5])
if group then
  last = group['last-delivered-id']
  for _, entry in ipairs(redis.call('XPENDING', KEYS[1], group.name, '(' .. ARGV[3], '+', limit)) do
    if room <= 0 then return {found, 1} end
    local id, consumer = entry[1], entry[2]
    local row = entries_from(KEYS[1], id, 1, room)[1]
    local delayed = consumer == ':delayed' or redis.call('ZSCORE', KEYS[2], id)
    -- One that was deleted from the stream is no message any more, but counts as looked at.
    local fields = row and row[1] == id and row[2] or {}
    room = room - size_and_group(fields)
    found[#found + 1] = {id, fields, consumer, entry[4], delayed and 1 or 0}
  end
end
-- Unread entries come after the last one that was delivered, and after the id.
local full = false
if #found < limit then
  local first, rows = before(last, ARGV[3]) and ARGV[3] or last, nil
  rows, full = entries_from(KEYS[1], '(' .. first, limit - #found, room)
  for _, row in ipairs(rows) do
    found[#found + 1] = {row[1], row[2], '', 0, 0}
  end
end
return {found, full and 1 or 0}
