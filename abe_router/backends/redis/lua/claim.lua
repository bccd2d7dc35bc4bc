-- Claims entries that were handed back, entries held longer than the lease, and entries due for another
-- attempt. Returns what `take` returns but the last, and in how many milliseconds there may be more, -1 for not within the
-- horizon.
-- KEYS: stream, failures, delayed, dead. ARGV: group, consumer, lease and horizon in milliseconds, limit.
local group, lease, limit, wanted = ARGV[1], ARGV[3], tonumber(ARGV[5]), {}
local orphans, time = 0, now()
for _, owner in ipairs(redis.call('XPENDING', KEYS[1], group)[4] or {}) do
  if owner[1] == ':delayed' then
    orphans = owner[2] - redis.call('ZCARD', KEYS[3])
  elseif #wanted < limit then
    local due = redis.call('XPENDING', KEYS[1], group,
      'IDLE', idle(owner[1], lease), '-', '+', limit - #wanted, owner[1])
    for _, entry in ipairs(due) do
      wanted[#wanted + 1] = {entry[1], entry[4] + 1}
    end
  end
end
if orphans > 0 then -- the server evicted the set of due times, so they are due now
  for _, entry in ipairs(redis.call('XPENDING', KEYS[1], group, '-', '+', 1000, ':delayed')) do
    redis.call('ZADD', KEYS[3], 'NX', 0, entry[1])
  end
end
if #wanted < limit then
  local due = redis.call('ZRANGE', KEYS[3], '-inf', time, 'BYSCORE', 'LIMIT', 0, limit - #wanted)
  for _, id in ipairs(due) do
    -- Another program may have written a name that is no id.
    local entry = string.match(id, '^%d+%-%d+$') and
      redis.pcall('XPENDING', KEYS[1], group, id, id, 1, ':delayed')[1]
    if entry then wanted[#wanted + 1] = {id, entry[4] + 1} end
    redis.call('ZREM', KEYS[3], id)
  end
end
local taken, gone, large, full = take(wanted)
local more = -1
if full or #wanted == limit then
  more = 0
else
  local due = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
  if due and due - time <= tonumber(ARGV[4]) then more = math.max(0, due - time) end
end
return {taken, gone, large, more}
