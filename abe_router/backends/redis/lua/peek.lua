-- Looks at the entries of a group that are not settled, and changes nothing. Returns {id, fields, consumer or
-- nothing if unread, delivery count, 1 if it is delayed} of each, in their order.
-- KEYS: stream, delayed. ARGV: group, where it begins when it does not exist yet, the id after which to begin,
-- limit.
local group, last, limit, found = group_of(KEYS[1], ARGV[1]), ARGV[2], tonumber(ARGV[4]), {}
if group then
  last = group['last-delivered-id']
  for _, entry in ipairs(redis.call('XPENDING', KEYS[1], group.name, '(' .. ARGV[3], '+', limit)) do
    local id, consumer = entry[1], entry[2]
    local row = redis.call('XRANGE', KEYS[1], id, id)[1]
    local delayed = consumer == ':delayed' or redis.call('ZSCORE', KEYS[2], id)
    -- One that was deleted from the stream is no message any more, but counts as looked at.
    found[#found + 1] = {id, row and row[2] or {}, consumer, entry[4], delayed and 1 or 0}
  end
end
-- Unread entries come after the last one that was delivered, and after the id.
if #found < limit then
  local first = before(last, ARGV[3]) and ARGV[3] or last
  for _, row in ipairs(redis.pcall('XRANGE', KEYS[1], '(' .. first, '+', 'COUNT', limit - #found)) do
    found[#found + 1] = {row[1], row[2], '', 0, 0}
  end
end
return found
