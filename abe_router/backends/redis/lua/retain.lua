-- Records what a caller wants kept, and returns what all callers want: patterns, each followed by milliseconds.
-- KEYS: retention, a hash of `MILLISECONDS PATTERN` to the time until which it counts. ARGV: for how long this
-- record counts, then patterns, each followed by milliseconds.
local time = now()
for i = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i + 1] .. ' ' .. ARGV[i], string.format('%d', time + ARGV[1]))
end
local all, wanted = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
  local millis, pattern = string.match(all[i], '^(%d+) (.*)$')
  if pattern and (tonumber(all[i + 1]) or 0) > time then
    wanted[#wanted + 1] = pattern
    wanted[#wanted + 1] = millis
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return wanted
