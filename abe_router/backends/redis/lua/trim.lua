-- Removes from the beginning of a stream the entries that all its groups have settled and that are old enough.
-- A call removes about `limit` entries at most, because the server does nothing else meanwhile. Returns how
-- many. Every group that exists on the stream counts. Nothing is removed unless each of the given groups
-- exists.
-- KEYS: stream. ARGV: how old an entry has to be in milliseconds, the limit, the groups that read the stream.
local FIRST = 3
if redis.call('XLEN', KEYS[1]) == 0 then return 0 end
local retain, limit = tonumber(ARGV[1]), tonumber(ARGV[2])

local there, first = {}, nil
for _, row in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = named(row)
  there[group.name] = true
  -- Its unsettled entries begin with the first one it holds, or the first one it was not given.
  local unread = redis.call('XRANGE', KEYS[1], '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
  for _, need in ipairs({unread and unread[1] or '', redis.call('XPENDING', KEYS[1], group.name)[2] or ''}) do
    if need ~= '' and (not first or before(need, first)) then first = need end
  end
end
for i = FIRST, #ARGV do
  if not there[ARGV[i]] then return 0 end
end

-- Once a program has chosen an id from the future, or the clock was set back, the server counts on from that
-- id. The ids behind it say nothing about the age of their entries, but our messages have their own time.
local function seconds(entry)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'at' then
      local at = tonumber(entry[2][i + 1])
      return at and at == at and at or 0
    end
  end
  return 0
end

local function entry_at(millis, number)
  return redis.call('XRANGE', KEYS[1], millis .. '-' .. number, '+', 'COUNT', 1)[1]
end

-- Returns the first entry from `entry` on that is too young, none if none is. It bisects, so a few entries of
-- other programs, which have no time, may count as the ones around them.
local function first_young(entry, last, old)
  if seconds(entry) >= old then return entry end
  if seconds(last) < old then return nil end
  -- First among the milliseconds, then among the entries of one millisecond. Larger numbers are not exact.
  local low, high = tonumber(string.match(entry[1], '^%d+')), tonumber(string.match(last[1], '^%d+'))
  while high - low > 1 and high < 9e15 do
    local middle = math.floor((low + high) / 2)
    local found = entry_at(string.format('%d', middle), '0')
    if found and seconds(found) < old then
      entry, low = found, middle
    else
      high = middle
    end
  end
  local millis, number = string.match(entry[1], '^(%d+)-(%d+)$')
  low = tonumber(number)
  high = low + limit
  while high - low > 1 and high < 9e15 do
    local middle = math.floor((low + high) / 2)
    local found = entry_at(millis, string.format('%d', middle))
    if found and seconds(found) < old then
      entry, low = found, middle
    else
      high = middle
    end
  end
  return redis.call('XRANGE', KEYS[1], '(' .. entry[1], '+', 'COUNT', 1)[1]
end

local time, bound = now(), nil
if retain > 0 then
  bound = string.format('%d-0', math.max(0, time - retain + 1))
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  local present = string.format('%d-0', time + 1)
  if not before(last[1], present) then
    -- What is not from the future comes first, and has to be old enough before the rest can go.
    local oldest = redis.call('XRANGE', KEYS[1], bound, '+', 'COUNT', 1)[1]
    if oldest and not before(oldest[1], present) then
      local young = first_young(oldest, last, (time - retain) / 1000)
      bound = young and young[1]
    end
  end
end
if not bound or first and before(first, bound) then bound = first end
local removed
if bound then
  if bound == '0-0' then return 0 end
  removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', bound, 'LIMIT', limit)
  -- The rest is less than a node of the stream.
  if removed == 0 then removed = redis.call('XTRIM', KEYS[1], 'MINID', '=', bound) end
else
  removed = redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', 0, 'LIMIT', limit)
  if removed == 0 then removed = redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', 0) end
end
return removed
