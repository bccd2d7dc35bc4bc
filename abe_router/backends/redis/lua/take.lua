-- Delivers entries, given as id and delivery count, to the consumer ARGV[2] of the group ARGV[1]. Returns
-- {id, fields, delivery count, failures} of each, the ids of those the stream no longer has, the ids of those
-- that were too large, and became dead letters, and whether the answer is full. Then the last entries are not
-- delivered. The last of KEYS is the stream of dead letters.

local function bury(id, fields, size, count, failures)
  local attempts = tonumber(string.match(failures or '', '^(%d+):') or 0)
  local at = now() / 1000
  local record = cjson.encode({
    reason = {
      kind = 'malformed', error = 'PayloadMalformed',
      message = string.format('the entry has %d bytes, over the limit of %d', size, MOST_BYTES),
    },
    message = {attempt = attempts + 1}, attempts = attempts, deliveries = tonumber(count),
    first_failed_at = at, last_failed_at = at,
  })
  redis.call('XADD', KEYS[#KEYS], '*', 'dead_letter', record, unpack(shortened(fields)))
  redis.call('XACK', KEYS[1], ARGV[1], id)
  redis.call('HDEL', KEYS[2], id)
  redis.call('ZREM', KEYS[3], id)
end

local function take(wanted)
  local taken, gone, large, room = {}, {}, {}, ANSWER_BYTES
  for _, entry in ipairs(wanted) do
    if room <= 0 then return taken, gone, large, true end
    local id, count = entry[1], entry[2]
    local got = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'RETRYCOUNT', count)[1]
    if got then
      local failures = redis.call('HGET', KEYS[2], id)
      local size, only = size_and_group(got[2])
      if size > MOST_BYTES and (only or ARGV[1]) == ARGV[1] then
        bury(id, got[2], size, count, failures)
        large[#large + 1] = id
      elseif size > MOST_BYTES then
        taken[#taken + 1] = {id, for_another(only), count, failures}
      else
        room = room - size
        taken[#taken + 1] = {id, got[2], count, failures}
      end
    else
      gone[#gone + 1] = id
      redis.call('HDEL', KEYS[2], id)
    end
  end
  return taken, gone, large, false
end
