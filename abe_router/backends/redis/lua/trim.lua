-- Removes from the beginning of a stream the entries that all its groups have settled and that are old enough.
-- A call removes about `limit` entries at most, because the server does nothing else meanwhile. Returns how
-- many. Every group that exists on the stream counts. Nothing is removed unless each of the given groups
-- exists.
-- KEYS: stream. ARGV: how old an entry has to be in milliseconds, the limit, the groups that read the stream.
local FIRST = 3
if redis.call('XLEN', KEYS[1]) == 0 then return 0 end

-- An id as a pair. Its second part stays text, because it may exceed what a number holds.
local function parts(id)
  local millis, number = string.match(id, '^(%d+)-(%d+)$')
  return {tonumber(millis), number}
end
local function before(a, b)
  if a[1] ~= b[1] then return a[1] < b[1] end
  if #a[2] ~= #b[2] then return #a[2] < #b[2] end
  return a[2] < b[2]
end

local there, first = {}, nil
for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #row, 2 do group[row[i]] = row[i + 1] end
  there[group.name] = true
  -- Its unsettled entries begin with the first one it holds, or the first one it was not given.
  local unread = redis.call('XRANGE', KEYS[1], '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
  for _, need in ipairs({unread and unread[1] or '', redis.call('XPENDING', KEYS[1], group.name)[2] or ''}) do
    local id = need ~= '' and parts(need)
    if id and (not first or before(id, first)) then first = id end
  end
end
for i = FIRST, #ARGV do
  if not there[ARGV[i]] then return 0 end
end

local old = {now() - ARGV[1] + 1, '0'}
if not first or before(old, first) then first = old end
if first[1] <= 0 then return 0 end
local id = string.format('%d', first[1]) .. '-' .. first[2]
local removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', id, 'LIMIT', ARGV[2])
-- The rest is less than a node of the stream.
if removed == 0 then removed = redis.call('XTRIM', KEYS[1], 'MINID', '=', id) end
return removed
