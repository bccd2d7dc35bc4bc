-- Appends messages in order. Returns how many, and the error that stopped it.
-- KEYS: streams. ARGV: of each message the id, the body and the time. An empty id is followed by the number of
-- the stream for the messages after it, and by the headers of the next one, empty for none.
local stream, headers, done = KEYS[1], '', 0
for i = 1, #ARGV, 3 do
  local id, body, at = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if id == '' then
    stream, headers = KEYS[tonumber(body)], at
  else
    local added
    if headers == '' then
      added = redis.pcall('XADD', stream, '*', 'data', body, 'id', id, 'at', at)
    else
      added = redis.pcall('XADD', stream, '*', 'data', body, 'id', id, 'at', at, 'headers', headers)
      headers = ''
    end
    if type(added) == 'table' then return {done, added.err} end
    done = done + 1
  end
end
return {done}
