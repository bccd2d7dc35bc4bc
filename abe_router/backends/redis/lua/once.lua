-- Ids by which messages are known again: a sorted set beside the stream, by when they are to be forgotten.

-- Appends a message and remembers its id for so many milliseconds, with 0 for none at all; false when the id is
-- remembered already. The id is written first: when the server is out of memory, a script fails at its first
-- write and at no later one, so there is no message without its id; and an id goes when its message cannot come.
local function once(stream, ids, at, window, id, body, time, headers)
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

-- Forgets what is due, so many at most; the set itself goes when the last of it is due.
local function forget(ids, at, most)
  local due = redis.call('ZRANGE', ids, '-inf', at, 'BYSCORE', 'LIMIT', 0, most)
  if #due > 0 then redis.call('ZREM', ids, unpack(due)) end
  local last = redis.call('ZRANGE', ids, -1, -1, 'WITHSCORES')
  if #last > 0 then redis.call('PEXPIREAT', ids, last[2]) end
end
