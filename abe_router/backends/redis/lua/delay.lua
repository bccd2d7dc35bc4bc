-- Puts entries aside for another attempt; an entry is its id and the delay in milliseconds. Returns the ids
-- of those not held.
-- KEYS: stream, failures, delayed.
local held, at, refused = fence(held_now(), 2)
local time = now()
for i, id in ipairs(held) do
  local count, since = string.match(redis.call('HGET', KEYS[2], id) or '', '^(%d+):(%d+)$')
  redis.call('HSET', KEYS[2], id, (tonumber(count or 0) + 1) .. ':' .. string.format('%d', since or time))
  redis.call('ZADD', KEYS[3], time + ARGV[at[i] + 1], id)
  if #pass(':delayed', {id}, 'JUSTID') == 0 then -- it was deleted from the stream
    redis.call('ZREM', KEYS[3], id)
    redis.call('HDEL', KEYS[2], id)
  end
end
return refused
