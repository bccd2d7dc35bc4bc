-- Counts a failure of an entry, and records when its next attempt is due.
local function failed(id, time, due)
  local count, since = string.match(redis.call('HGET', KEYS[2], id) or '', '^(%d+):(%d+)$')
  redis.call('HSET', KEYS[2], id, (tonumber(count or 0) + 1) .. ':' .. string.format('%d', since or time))
  redis.call('ZADD', KEYS[3], due, id)
end
