-- Starts leases anew; an entry is its id. Returns the ids of those not held.
-- KEYS: stream.
local held, _, refused = fence(1)
if #held > 0 then
  local kept = {}
  for _, id in ipairs(pass(ARGV[2], held, 'JUSTID')) do kept[id] = true end
  for _, id in ipairs(held) do
    if not kept[id] then refused[#refused + 1] = id end
  end
end
return refused
