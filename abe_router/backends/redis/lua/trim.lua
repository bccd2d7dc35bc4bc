-- Removes from the beginning of streams the entries that all their groups have settled and that are old enough.
-- A call removes about `limit` entries at most, because the server does nothing else meanwhile. Returns how
-- many, and how many of the streams, the first ones, it has looked at. Every group that exists on a stream
-- counts. Nothing is removed from it unless each of the given groups exists.
-- KEYS: streams. ARGV: how old an entry has to be in milliseconds, the limit, the groups that read the streams.
local FIRST = 3
local retain, limit = tonumber(ARGV[1]), tonumber(ARGV[2])

-- Returns the first entry that some group has not settled, none if there is none; false if a group is missing.
local function first_needed(stream)
  local there, first = {}, nil
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = named(row)
    there[group.name] = true
    -- Its unsettled entries begin with the first one it holds, or the first one it was not given.
    local unread = redis.call('XRANGE', stream, '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
    for _, need in ipairs({unread and unread[1] or '', redis.call('XPENDING', stream, group.name)[2] or ''}) do
      if need ~= '' and (not first or before(need, first)) then first = need end
    end
  end
  for i = FIRST, #ARGV do
    if not there[ARGV[i]] then return false end
  end
  return first
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

local function entry_at(stream, millis, number)
  return redis.call('XRANGE', stream, millis .. '-' .. number, '+', 'COUNT', 1)[1]
end

-- Returns the first entry from `entry` on that is too young, none if none is. It bisects, so a few entries of
-- other programs, which have no time, may count as the ones around them.
local function first_young(stream, entry, last, old)
  if seconds(entry) >= old then return entry end
  if seconds(last) < old then return nil end
  -- First among the milliseconds, then among the entries of one millisecond. Larger numbers are not exact.
  local low, high = tonumber(string.match(entry[1], '^%d+')), tonumber(string.match(last[1], '^%d+'))
  while high - low > 1 and high < 9e15 do
    local middle = math.floor((low + high) / 2)
    local found = entry_at(stream, string.format('%d', middle), '0')
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
    local found = entry_at(stream, millis, string.format('%d', middle))
    if found and seconds(found) < old then
      entry, low = found, middle
    else
      high = middle
    end
  end
  return redis.call('XRANGE', stream, '(' .. entry[1], '+', 'COUNT', 1)[1]
end

local time = now()

-- Returns the id from which on the entries of a stream are too young to be removed; none if none is.
local function young_from(stream)
  if retain <= 0 then return nil end
  local bound = string.format('%d-0', math.max(0, time - retain + 1))
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  local present = string.format('%d-0', time + 1)
  if before(last[1], present) then return bound end
  -- What is not from the future comes first, and has to be old enough before the rest can go.
  local oldest = redis.call('XRANGE', stream, bound, '+', 'COUNT', 1)[1]
  if not oldest or before(oldest[1], present) then return bound end
  local young = first_young(stream, oldest, last, (time - retain) / 1000)
  return young and young[1]
end

local function trim(stream)
  if redis.call('XLEN', stream) == 0 then return 0 end
  local first = first_needed(stream)
  if first == false then return 0 end
  local bound = young_from(stream)
  if not bound or first and before(first, bound) then bound = first end
  if bound == '0-0' then return 0 end
  local how, threshold = 'MAXLEN', 0
  if bound then how, threshold = 'MINID', bound end
  local removed = redis.call('XTRIM', stream, how, '~', threshold, 'LIMIT', limit)
  -- The rest is less than a node of the stream.
  return removed > 0 and removed or redis.call('XTRIM', stream, how, '=', threshold)
end

local removed = 0
for number, stream in ipairs(KEYS) do
  removed = removed + trim(stream)
  if removed >= limit then return {removed, number} end
end
return {removed, #KEYS}
