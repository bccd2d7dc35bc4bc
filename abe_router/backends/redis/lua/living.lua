-- Returns the workers whose word is still good, each followed by it, and forgets the others.
-- KEYS: workers.
local all, time, living = redis.call('HGETALL', KEYS[1]), now(), {}
for i = 1, #all, 2 do
  local colon = string.find(all[i + 1], ':', 1, true)
  if tonumber(string.sub(all[i + 1], 1, colon - 1)) > time then
    living[#living + 1] = all[i]
    living[#living + 1] = string.sub(all[i + 1], colon + 1)
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return living
