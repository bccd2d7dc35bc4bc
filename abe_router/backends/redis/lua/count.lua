-- Counts what a subscription has of a stream: not yet read (-1 when Redis cannot tell), where it read to,
-- pending, handed back, delayed, dead.
-- KEYS: stream, delayed, dead. ARGV: group, where it begins when it is not there yet.
local lag, last, pending, released = -1, ARGV[2], 0, 0
for _, row in ipairs(redis.pcall('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #row, 2 do group[row[i]] = row[i + 1] end
  if group.name == ARGV[1] then
    lag, last, pending = group.lag or -1, group['last-delivered-id'], group.pending
    for _, owner in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1])[4] or {}) do
      if owner[1] == ':released' then released = tonumber(owner[2]) end
    end
  end
end
return {lag, last, pending, released, redis.call('ZCARD', KEYS[2]), redis.call('XLEN', KEYS[3])}
