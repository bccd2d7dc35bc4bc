-- Returns dead letters without the payloads of their messages: id, record, id of the message, `former`.
-- KEYS: dead. ARGV: first id, limit.
local found = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])) do
  local own = {}
  for i = 1, #entry[2], 2 do
    local name = entry[2][i]
    if name == 'dead_letter' or name == 'id' or name == 'former' then own[name] = entry[2][i + 1] end
  end
  found[#found + 1] = {entry[1], own.dead_letter or '', own.id or '', own.former or ''}
end
return found
