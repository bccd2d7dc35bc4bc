-- Looks for what other programs did to groups. Returns for each group how many entries were deleted that it was
-- not given (0 too if Redis cannot tell), the last entry it was given, and how many it was given, -1 if Redis
-- does not know, which it always does unless the group was created midway, its position was set, or entries
-- were deleted one by one, which is -2.
-- KEYS: stream of each. ARGV: group of each.
local answers = {}
for k = 1, #KEYS do
  local answer, group = {0, '', -1}, group_of(KEYS[k], ARGV[k])
  if group then
    local read, given = group['entries-read'] or -1, group['last-delivered-id']
    local stream = named(redis.call('XINFO', 'STREAM', KEYS[k]))
    local missing, first = 0, stream['first-entry']
    if read >= 0 and (not first or before(given, first[1])) then
      missing = math.max(0, stream['entries-added'] - read - stream.length)
    end
    if read < 0 and stream['max-deleted-entry-id'] ~= '0-0' then read = -2 end
    answer = {missing, given, read}
  end
  answers[k] = answer
end
return answers
