-- Counts what a subscription has of a stream. Returns how many entries it was not given (-1 when Redis
-- cannot tell), the last entry it was given, how many are pending, released, delayed and dead, the id of the
-- oldest entry that is ready, and when the first delayed one is due, both empty if none is. Its cost does not
-- depend on the number of entries.
-- KEYS: stream, delayed, dead. ARGV: group, where it begins when it does not exist yet.
local lag, last, pending, released, oldest = -1, ARGV[2], 0, 0, ''
local group = group_of(KEYS[1], ARGV[1])
if group then
  lag, last, pending = group.lag or -1, group['last-delivered-id'], group.pending
  for _, owner in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1])[4] or {}) do
    if owner[1] == ':released' then released = tonumber(owner[2]) end
  end
end
if released > 0 then
  -- A released entry was given before all unread ones, so it is the older one.
  oldest = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ':released')[1][1]
else
  local unread = redis.pcall('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 1)[1]
  if unread then oldest = unread[1] end
end
local due = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2] or ''
return {lag, last, pending, released, redis.call('ZCARD', KEYS[2]), redis.call('XLEN', KEYS[3]), oldest, due}
