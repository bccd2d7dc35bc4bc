-- Appends messages in order. Returns how many were dealt with; and if there is an error or a duplicate, also
-- the error that stopped it, else an empty text, and the positions of the duplicates, whose ids are remembered.
-- KEYS: streams, then, if ids are to be remembered, the ids of each. ARGV: the messages, packed in one array,
-- because the server takes longer to receive many arguments; the small bodies, one after the other; and each
-- large body. Of each message the array has its id, the size of its body and its time. The size of a large body
-- is the negative number of the argument behind the small ones. An empty id is followed by the number of the
-- stream for the messages after it, and by the headers of the next message, empty for none; or by 0, and for how
-- many milliseconds the ids of the messages after it are remembered.
local number, stream, headers, window, done, at = 1, KEYS[1], '', 0, 0, nil
local items, bodies, first = cmsgpack.unpack(ARGV[1]), ARGV[2], 1
local duplicates, remembered = {}, {}
local streams = #KEYS / 2

local function append(id, body, time)
  if window == 0 then
    if headers == '' then return redis.pcall('XADD', stream, '*', 'data', body, 'id', id, 'at', time) end
    return redis.pcall('XADD', stream, '*', 'data', body, 'id', id, 'at', time, 'headers', headers)
  end
  at = at or now()
  local ids = KEYS[number + streams]
  local ok, added = pcall(append_unless_known, stream, ids, at, window, id, body, time, headers)
  if not ok then return {err = type(added) == 'table' and added.err or tostring(added)} end
  if added then
    remembered[ids] = (remembered[ids] or 0) + 1
  else
    duplicates[#duplicates + 1] = done
    remembered[ids] = remembered[ids] or 0
  end
end

local why = ''
for i = 1, #items, 3 do
  local id, size, time = items[i], items[i + 1], items[i + 2]
  if id ~= '' then
    local is_large = size < 0
    local body = is_large and ARGV[2 - size] or string.sub(bodies, first, first + size - 1)
    local added = append(id, body, time)
    if type(added) == 'table' then
      why = added.err
      break
    end
    headers, done, first = '', done + 1, is_large and first or first + size
  elseif size > 0 then
    number, headers = size, time
    stream = KEYS[number]
  else
    window = time
  end
end
-- A replica accepts nothing, so the whole batch is refused.
if done == 0 and (string.find(why, '^READONLY') or string.find(why, '^MASTERDOWN')) then return {err = why} end
for ids, count in pairs(remembered) do forget(ids, at, count + 250) end
if why == '' and #duplicates == 0 then return {done} end
return {done, why, duplicates}
