-- Delivers entries, given as id and delivery count, to the consumer ARGV[2] of the group ARGV[1]. Returns
-- {id, fields, delivery count, failures} of each, and the ids of those the stream no longer has.
local function take(wanted)
  local taken, gone = {}, {}
  for _, entry in ipairs(wanted) do
    local id, count = entry[1], entry[2]
    local got = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'RETRYCOUNT', count)[1]
    if got then
      taken[#taken + 1] = {id, got[2], count, redis.call('HGET', KEYS[2], id)}
    else
      gone[#gone + 1] = id
      redis.call('HDEL', KEYS[2], id)
    end
  end
  return taken, gone
end
