-- Acquires the ownership of a stream if it is free, or renews it, and hands out: first the entries that were
-- delivered before and are not with their handler, due or not, and then new ones. Returns in how many
-- milliseconds to ask again, and the last entry of `released`. For the owner these follow: {id, fields,
-- delivery count, failures, milliseconds to wait} of each entry that comes again, the new entries, the ids of
-- those that the stream no longer has, the ids of those that became dead letters because they are too large,
-- up to where the group was delivered, and 1 if there is more because the answer is full.
-- KEYS: stream, failures, delayed, owner, released, dead. ARGV: group, consumer, lease in milliseconds, limit; then,
-- if replies may have been lost, how many ids are held, and these ids.
local RETRY = 250
local group, me, lease, limit = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local time, gone = now(), {}
local owner, till = owner_of(KEYS[4])
local released = redis.call('XREVRANGE', KEYS[5], '+', '-', 'COUNT', 1)[1]
released = released and released[1] or '0-0'
if owner ~= me and till > time then return {till - time, released} end

-- Takes entries from their consumer, and lowers their delivery counts by `less`.
local function put_back(entries, less)
  for _, entry in ipairs(entries) do
    local id, due = entry[1], redis.call('ZSCORE', KEYS[3], entry[1])
    local to = due and tonumber(due) > time and ':delayed' or ':released'
    local kept = redis.call('XCLAIM', KEYS[1], group, to, 0, id, 'RETRYCOUNT', entry[4] - less, 'JUSTID')
    if #kept == 0 then
      gone[#gone + 1] = id
      redis.call('HDEL', KEYS[2], id)
      redis.call('ZREM', KEYS[3], id)
    end
  end
end

local alive, again = false, false
for _, row in ipairs(redis.call('XPENDING', KEYS[1], group)[4] or {}) do
  local name, count = row[1], tonumber(row[2])
  if name == ':released' or name == ':delayed' then
    again = true
  elseif name ~= me then
    local since = name == owner and 0 or idle(name, lease)
    local over = redis.call('XPENDING', KEYS[1], group, 'IDLE', since, '-', '+', count, name)
    put_back(over, 0)
    again, alive = again or #over > 0, alive or #over < count
  elseif ARGV[5] then
    local known, lost = {}, {}
    for i = 6, 5 + ARGV[5] do known[ARGV[i]] = true end
    for _, entry in ipairs(redis.call('XPENDING', KEYS[1], group, '-', '+', count, me)) do
      if not known[entry[1]] then lost[#lost + 1] = entry end
    end
    put_back(lost, 1)
    again = again or #lost > 0
  end
end
if owner ~= me and alive then return {RETRY, released} end
set_owner(KEYS[4], me, time + lease)

local wanted, found = {}, {}
if again then
  for _, name in ipairs({':released', ':delayed'}) do
    for _, entry in ipairs(redis.call('XPENDING', KEYS[1], group, '-', '+', limit, name)) do
      found[#found + 1] = {entry[1], entry[4] + 1}
    end
  end
  table.sort(found, function(a, b) return before(a[1], b[1]) end)
  for i = 1, math.min(limit, #found) do wanted[i] = found[i] end
end
local taken, missing, large, full = take(wanted)
for _, id in ipairs(missing) do gone[#gone + 1] = id end
for _, entry in ipairs(taken) do
  local due = redis.call('ZSCORE', KEYS[3], entry[1])
  entry[4] = entry[4] or ''
  entry[5] = due and math.max(0, due - time) or 0
end
-- Entries that are due count as in flight from now on.
local due = redis.call('ZRANGE', KEYS[3], '-inf', time, 'BYSCORE', 'LIMIT', 0, 1000)
if #due > 0 then redis.call('ZREM', KEYS[3], unpack(due)) end

-- Makes new entries that are too large dead letters, and puts back those beyond what one answer brings. Returns
-- the others, and whether some were put back.
local function within_answer(entries)
  local kept, room, rest = {}, ANSWER_BYTES, {}
  for _, entry in ipairs(entries) do
    local size, only = size_and_group(entry[2])
    if room <= 0 then
      rest[#rest + 1] = {entry[1], me, 0, 1}
    elseif size > MOST_BYTES and (only or group) == group then
      bury(entry[1], entry[2], size, 1, nil)
      large[#large + 1] = entry[1]
    elseif size > MOST_BYTES then
      kept[#kept + 1] = {entry[1], for_another(only)}
    else
      room = room - size
      kept[#kept + 1] = entry
    end
  end
  put_back(rest, 1)
  return kept, #rest > 0
end

local new, last = {}, ''
if #wanted < limit and not full then
  local answer = redis.call(
    'XREADGROUP', 'GROUP', group, me, 'COUNT', limit - #wanted, 'STREAMS', KEYS[1], '>')
  new = answer and answer[1][2] or new
end
if #new > 0 then
  last = new[#new][1]
  new, full = within_answer(new)
else
  last = group_of(KEYS[1], group)['last-delivered-id']
end
return {0, released, taken, new, gone, large, last, full and 1 or 0}
