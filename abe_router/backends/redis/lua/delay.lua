-- Sets entries aside for another attempt; an entry is its id and the delay in milliseconds. Returns the ids of
-- those not held.
-- KEYS: stream, failures, delayed.
local held, at, refused = fence(2)
local time = now()
for i, id in ipairs(held) do
  failed(id, time, time + ARGV[at[i] + 1])
  if #pass(':delayed', {id}, 'JUSTID') == 0 then clear({id}) end
end
return refused
