-- The ids of accepted messages: a sorted set beside the stream, ordered by when each id is forgotten.

-- Appends a message and remembers its id for `window` milliseconds, not at all if that is 0; returns false
-- when the id is known. The id is written first. A server without memory fails a script at its first write
-- and at no later one, so no message is without its id; and when the message is refused, its id is removed.
local function append_unless_known(stream, ids, at, window, id, body, time, headers)
  local until_then = at + window
  if tonumber(window) > 0 and redis.call('ZADD', ids, 'NX', until_then, id) == 0 then
    if tonumber(redis.call('ZSCORE', ids, id)) > at then return false end
    redis.call('ZADD', ids, until_then, id)
  end
  local added
  if headers == '' then
    added = redis.pcall('XADD', stream, '*', 'data', body, 'id', id, 'at', time)
  else
    added = redis.pcall('XADD', stream, '*', 'data', body, 'id', id, 'at', time, 'headers', headers)
  end
  if type(added) == 'table' then
    if tonumber(window) > 0 then redis.call('ZREM', ids, id) end
    error(added)
  end
  return true
end

-- Forgets ids whose time is over, at most `most`. The set itself expires with its last id.
local function forget(ids, at, most)
  local due = redis.call('ZRANGE', ids, '-inf', at, 'BYSCORE', 'LIMIT', 0, most)
  if #due > 0 then redis.call('ZREM', ids, unpack(due)) end
  local last = redis.call('ZRANGE', ids, -1, -1, 'WITHSCORES')
  if #last > 0 then redis.call('PEXPIREAT', ids, last[2]) end
end
