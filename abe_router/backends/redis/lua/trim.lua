-- Removes from the beginning of a stream what all its groups have settled, as far as it is old enough, and
-- never more than about so many entries, for the server does nothing else meanwhile. Returns how many.
-- Nothing is removed when a subscription was made since it was looked which there are, so none can be passed
-- over, and unless each of their groups is there.
-- KEYS: stream, entered. ARGV: what `entered` was, how old an entry has to be in milliseconds, how many entries,
-- the groups that read the stream.
local FIRST = 4
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return 0 end
if redis.call('XLEN', KEYS[1]) == 0 then return 0 end

-- An id as a pair of numbers, its parts as text with it: the second one may be beyond what a number holds.
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
  -- What it has yet to settle begins with the first entry it holds, or the first to come.
  local rest = redis.call('XRANGE', KEYS[1], '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
  for _, need in ipairs({rest and rest[1] or '', redis.call('XPENDING', KEYS[1], group.name)[2] or ''}) do
    local id = need ~= '' and parts(need)
    if id and (not first or before(id, first)) then first = id end
  end
end
for i = FIRST, #ARGV do
  if not there[ARGV[i]] then return 0 end
end

local old = {now() - ARGV[2] + 1, '0'}
if not first or before(old, first) then first = old end
if first[1] <= 0 then return 0 end
local id = string.format('%d', first[1]) .. '-' .. first[2]
local removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', id, 'LIMIT', ARGV[3])
-- What is left is less than a node of the stream.
if removed == 0 then removed = redis.call('XTRIM', KEYS[1], 'MINID', '=', id) end
return removed
