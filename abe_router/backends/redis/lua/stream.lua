-- Returns what XINFO STREAM says, without the fields of the entries that it shows.
-- KEYS: stream.
local about = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 2, #about, 2 do
  if type(about[i]) == 'table' then about[i] = {about[i][1]} end
end
return about
