-- Returns name, revision and value of each entry of a bucket.
-- KEYS: entries.
local all, time, found = redis.call('HGETALL', KEYS[1]), now(), {}
for i = 1, #all, 2 do
  local revision, value = read(all[i + 1], time)
  if revision > 0 then
    found[#found + 1] = all[i]
    found[#found + 1] = revision
    found[#found + 1] = value
  end
end
return found
