-- Appends messages in order. Returns how many, and the error that stopped it.
-- KEYS: streams. ARGV: of each message the id, the body, the time and the headers, empty for none; an empty id
-- is followed by the number of the stream for the messages after it.
local stream, i, done = KEYS[1], 1, 0
while i <= #ARGV do
  local id, body, at, headers = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if id == '' then
    stream, i = KEYS[tonumber(body)], i + 2
  else
    local added
    if headers == '' then
      added = redis.pcall('XADD', stream, '*', 'data', body, 'id', id, 'at', at)
    else
      added = redis.pcall('XADD', stream, '*', 'data', body, 'id', id, 'at', at, 'headers', headers)
    end
    if type(added) == 'table' then return {done, added.err} end
    done, i = done + 1, i + 4
  end
end
return {done}
