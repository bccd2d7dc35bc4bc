-- Returns for each subscription to a stream in how many milliseconds `claim` will find something: 0 is now, -1
-- not within the horizon, -2 that the group is gone.
-- KEYS: stream and delayed of each. ARGV: the horizon in milliseconds, then group and lease of each.
local time, answers = now(), {}
for k = 1, #KEYS, 2 do
  local group, lease, wait = ARGV[k + 1], ARGV[k + 2], -1
  local pending = redis.pcall('XPENDING', KEYS[k], group)
  if pending.err then
    if string.sub(pending.err, 1, 7) == 'NOGROUP' then wait = -2 end
  elseif pending[1] > 0 then
    for _, owner in ipairs(pending[4]) do
      if owner[1] == ':delayed' then
        local due = redis.call('ZRANGE', KEYS[k + 1], 0, 0, 'WITHSCORES')[2]
        due = due and math.max(0, due - time) or 0
        if due <= tonumber(ARGV[1]) and (wait < 0 or due < wait) then wait = due end
      elseif wait ~= 0 then
        local due = redis.call(
          'XPENDING', KEYS[k], group, 'IDLE', idle(owner[1], lease), '-', '+', 1, owner[1])
        if #due > 0 then wait = 0 end
      end
    end
  end
  answers[#answers + 1] = wait
end
return answers
